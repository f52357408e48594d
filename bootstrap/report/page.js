"use strict";
const figures = [...document.querySelectorAll("#gallery figure")];
const buttons = [...document.querySelectorAll("#controls button")];
const selects = [...document.querySelectorAll("#controls select")];
const count = document.querySelector("#count");

function show() {
  const outcome = buttons.find((button) => button.getAttribute("aria-pressed") === "true").dataset.outcome;
  let shown = 0;
  for (const figure of figures) {
    const values = JSON.parse(figure.dataset.values);
    const wanted = selects.every(({ dataset, value }) => !value || (values[dataset.slot] ?? []).includes(value));
    figure.hidden = !wanted || (outcome !== "all" && figure.dataset.outcome !== outcome);
    shown += !figure.hidden;
  }
  count.textContent = `${shown} of ${figures.length} images`;
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    show();
  });
}
for (const select of selects) select.addEventListener("change", show);
show();
