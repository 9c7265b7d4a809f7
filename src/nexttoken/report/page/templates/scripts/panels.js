// A select that shows one panel of its section and hides the others.
"use strict";

for (const select of document.querySelectorAll("select[data-panels]")) {
  const panels = document.getElementById(select.dataset.panels).querySelectorAll("[data-panel]");
  const show = () => {
    for (const panel of panels) panel.hidden = panel.dataset.panel !== select.value;
  };
  select.addEventListener("change", show);
  show();
}
