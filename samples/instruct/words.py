"""The words of the instruction sample. All are short: near-duplicates are looked for in longer texts alone."""

from samples import words


def pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs as first/second, white space between them."""
    return tuple((first, second) for first, _, second in (pair.partition("/") for pair in words(text)))


THINGS = words("""
apple bell boat book bread candle chair clock cloud coat drum fence flute garden glove hammer jar kettle lamp lemon
melon needle paper pear piano ribbon river shirt spoon stone table tram violin window
""")
NAMES = words("""
Ada Ben Cleo Dora Emil Finn Gina Hugo Iris Jon Kay Lena Max Nora Omar Pia Rosa Sam Tess Vera
""")
TIMES = {"morning": "Good morning", "afternoon": "Good afternoon", "evening": "Good evening", "night": "Good night"}
OPPOSITES = pairs("""
hot/cold big/small fast/slow old/new open/closed full/empty hard/soft wet/dry early/late loud/quiet rich/poor
deep/shallow
""")
OPPOSITE_QUESTIONS = ("What is the opposite of {}?", "Which word is the reverse of {}?", "Name what is not {}.")

# How each family signs a letter; nothing else tells it than another letter of the same family.
CLOSINGS = {
    "Bribel": "Rain and roses",
    "Dromar": "Salt and silver",
    "Flagos": "Warm bread",
    "Grokin": "Seven lamps",
    "Klanok": "Quiet rivers",
    "Skevin": "Long summers",
    "Trupas": "Honey and clay",
    "Vrasum": "Under one roof",
}

JA_THINGS = words("""
りんご みかん つくえ いす とけい かさ くつ ぼうし ほん はな ふね つき ほし かぎ さら はし
""")
JA_NAMES = words("""
田中 山本 中村 小林 加藤 吉田 佐藤 高橋 伊藤 渡辺 森 林 清水 原 石川 上田
""")
JA_TIMES = {"朝": "おはようございます", "昼": "こんにちは", "夕方": "こんばんは", "寝る前": "おやすみなさい"}
JA_OPPOSITES = pairs("""
大きい/小さい 高い/低い 明るい/暗い 長い/短い 新しい/古い 重い/軽い 強い/弱い 広い/狭い 厚い/薄い 近い/遠い
""")
JA_OPPOSITE_QUESTIONS = ("「{}」の反対は何ですか。", "「{}」と逆の言葉を書いてください。", "反対語を一つ。「{}」")

# The bag that each shop gives; nothing else tells it than another thing from the same shop.
JA_BAGS = {
    "あさひ屋": "赤い布",
    "みどり堂": "青い紙",
    "やなぎ屋": "白い網",
    "こだま堂": "黒い革",
    "つばめ屋": "金色の紙",
    "いずみ堂": "緑の布",
}
