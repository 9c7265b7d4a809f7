// The sentence that compares the two chosen runs.
"use strict";

for (const tools of document.querySelectorAll("[data-compare]")) {
  const pairs = readData(tools.dataset.compare).pairs;
  const [one, other] = [tools.querySelector("select.one"), tools.querySelector("select.other")];
  const verdict = document.getElementById(`${tools.dataset.compare}-verdict`);
  const show = () => {
    const places = [Number(one.value), Number(other.value)].sort((a, b) => a - b);
    const pair = pairs.find((entry) => entry[0] === places[0] && entry[1] === places[1]);
    verdict.textContent = pair ? `${pair[4]} ${pair[5]} ` : places[0] === places[1] ? "Choose two different runs." : "They share no rows.";
    if (pair) {
      const rows = document.createElement("span");
      rows.className = "quiet";
      rows.textContent = `${pair[2].toLocaleString("en")} rows.`;
      verdict.append(rows);
    }
  };
  one.addEventListener("change", show);
  other.addEventListener("change", show);
}
