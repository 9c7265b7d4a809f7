"""Tables of pages whose columns were divided into several tables, as one table again."""


def whole(page: str) -> str:
    """The page with consecutive tables of the same first column joined; cells keep their padding."""
    blocks: list[list[str]] = []
    for block in page.split("\n\n"):
        lines = block.strip("\n").split("\n")
        if blocks and is_table(lines) and is_table(blocks[-1]) and names(lines) == names(blocks[-1]):
            rows = [line.split(" | ", 1)[1] for line in lines]
            blocks[-1] = [f"{old[:-2]} | {row}" for old, row in zip(blocks[-1], rows, strict=True)]
        else:
            blocks.append(lines)
    return "\n\n".join("\n".join(lines) for lines in blocks)


def is_table(lines: list[str]) -> bool:
    return all(line.startswith("| ") for line in lines)


def names(lines: list[str]) -> list[str]:
    return [line.split(" | ", 1)[0] for line in lines]
