"use strict";
(() => {
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  // What a cell is sorted by: a number where it has one, else its text.
  const valueOf = (cell) => {
    const text = cell.dataset.v ?? cell.textContent.trim();
    const number = cell.classList.contains("n") && text !== "" ? Number(text) : NaN;
    return Number.isNaN(number) ? { missing: text === "–" || text === "", text } : { number };
  };

  const compare = (a, b) => {
    if (a.number !== undefined && b.number !== undefined) return a.number - b.number;
    if (a.number !== undefined) return -1;
    if (b.number !== undefined) return 1;
    return collator.compare(a.text, b.text);
  };

  const sort = (heading) => {
    const row = heading.parentElement;
    const index = [...row.children].indexOf(heading);
    const descending = heading.getAttribute("aria-sort") === "ascending";
    for (const other of row.children) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = heading.closest("table").tBodies[0];
    const rows = [...body.rows].map((item) => ({ item, value: valueOf(item.cells[index]) }));
    // What was not measured stays at the end, whichever way the rest goes.
    rows.sort((a, b) => {
      if (a.value.missing || b.value.missing) return (a.value.missing ? 1 : 0) - (b.value.missing ? 1 : 0);
      return descending ? compare(b.value, a.value) : compare(a.value, b.value);
    });
    body.append(...rows.map((entry) => entry.item));
  };

  const filter = (field) => {
    const table = field.closest(".table");
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...table.querySelectorAll("tbody tr")];
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      if (!row.hidden) shown += 1;
    }
    table.querySelector(".count").textContent =
      shown === rows.length ? `${rows.length} rows` : `${shown} of ${rows.length} rows`;
  };

  document.addEventListener("click", (event) => {
    const heading = event.target.closest("th");
    if (heading !== null && event.target.closest("button") !== null) sort(heading);
  });
  document.addEventListener("input", (event) => {
    if (event.target.type === "search") filter(event.target);
  });

  const theme = document.getElementById("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
})();
