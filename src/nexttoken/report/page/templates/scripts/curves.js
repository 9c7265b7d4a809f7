// Boxes that show and hide the curves of a run or a fold: a mark is there while both of its boxes are ticked.
"use strict";

for (const tools of document.querySelectorAll("[data-curves]")) {
  const plots = document.getElementById(tools.dataset.curves);
  const boxes = [...tools.querySelectorAll("input[data-shows]")];
  const show = () => {
    const hidden = new Set(boxes.filter((box) => !box.checked).map((box) => box.dataset.shows));
    for (const mark of plots.querySelectorAll("svg.plot > [class*=run-]")) {
      mark.toggleAttribute("hidden", [...mark.classList].some((name) => hidden.has(name)));
    }
  };
  for (const box of boxes) box.addEventListener("change", show);
  show();
}
