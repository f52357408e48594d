"use strict";
const figures = [...document.querySelectorAll("#gallery figure")];
const buttons = [...document.querySelectorAll("#controls button")];
const selects = [...document.querySelectorAll("#controls select")];
const more = document.querySelector("#more");
const PAGE = 24;
let limit = PAGE;
const count = document.querySelector("#count");

function show() {
  const outcome = buttons.find((button) => button.getAttribute("aria-pressed") === "true").dataset.outcome;
  let matching = 0;
  for (const figure of figures) {
    const values = JSON.parse(figure.dataset.values);
    const wanted = selects.every(({ dataset, value }) => !value || (values[dataset.slot] ?? []).includes(value));
    const matches = wanted && (outcome === "all" || figure.dataset.outcome === outcome);
    matching += matches;
    figure.hidden = !matches || matching > limit;
  }
  more.hidden = matching <= limit;
  count.textContent = `${matching} of ${figures.length} images`;
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    limit = PAGE;
    show();
  });
}
more.addEventListener("click", () => {
  limit += PAGE;
  show();
});
for (const select of selects) select.addEventListener("change", show);
show();
