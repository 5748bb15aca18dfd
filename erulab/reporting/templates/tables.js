// Sorts a table by a click on a heading, filters its rows, and opens what is folded before printing.
// The pages show everything without it.
for (const table of document.querySelectorAll(".scroll > table")) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // cells without a figure come last
    return a.localeCompare(b, undefined, { numeric: true });
  };
  const headings = table.tHead ? [...table.tHead.rows[0].cells] : [];
  for (const [column, heading] of (rows.length > 2 ? headings : []).entries()) {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    button.title = "sort";
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sorted = rows.map((row) => [key(row, column), row]).sort(([a], [b]) => {
        const order = compare(a, b);
        return down && typeof a === typeof b ? -order : order;
      });
      for (const [, row] of sorted) body.append(row);
    });
  }
  if (rows.length < 13) continue;
  const filter = document.createElement("input");
  filter.type = "search";
  filter.placeholder = `filter ${rows.length} rows`;
  filter.setAttribute("aria-label", filter.placeholder);
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
  });
  table.parentElement.before(filter);
}
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
