/* Sorting within sections, search, colours, and the state of a page in its address. */
"use strict";
(() => {
  const root = document.documentElement, body = document.body;
  const all = (what, where = document) => [...where.querySelectorAll(what)];
  // the state is in the hash, such as #sort=board~conflict~-1&q=rest&theme=dark
  // a link within the page, such as #main, leaves it as it is
  let kept = new URLSearchParams();
  const read = () => {
    const text = location.hash.slice(1);
    if (!text || text.includes("=")) kept = new URLSearchParams(text);
    return new URLSearchParams(kept);
  };
  const written = (state) => {
    const text = state.toString().replaceAll("%7E", "~");
    return text ? "#" + text : "";
  };
  const put = (name, value) => {
    const state = read();
    if (value) state.set(name, value); else state.delete(name);
    history.replaceState(null, "", location.pathname + location.search + written(state));
  };

  // other metrics and rules are other pages, whose names hold both
  const page = body.dataset;
  if (page.board) {
    const state = read();
    const here = {};
    for (const name of ["rule", "metric"]) {
      const known = all(`a.keep[data-${name}]`).map((a) => a.dataset[name]);
      const current = document.querySelector(`a.keep[data-${name}][aria-current]`);
      here[name] = current ? current.dataset[name] : "";
      const wanted = state.get(name);
      state.delete(name);
      if (wanted && known.includes(wanted)) here["to_" + name] = wanted;
    }
    const rule = here.to_rule || here.rule, metric = here.to_metric || here.metric;
    if (rule !== here.rule || metric !== here.metric) {
      const own = rule === page.rule && metric === page.metric;
      const file = own ? `${page.board}.html` : `${page.board}.${rule}.${metric}.html`;
      location.replace(new URL(file, location.href).href + written(state));
      return;
    }
  }

  // links to other pages take the colours with them, and those to the same table everything
  document.addEventListener("click", (event) => {
    const a = event.target.closest("a[href]");
    if (!a || a.hasAttribute("download") || a.getAttribute("href").startsWith("#")) return;
    if (a.hash && !a.hash.includes("=")) return; // to a record on a page of many
    const state = read();
    if (!a.classList.contains("keep")) {
      for (const name of [...state.keys()]) if (name !== "theme") state.delete(name);
    }
    a.hash = written(state);
  });

  const theme = document.getElementById("theme");
  const colour = () => {
    const wanted = read().get("theme");
    const known = wanted === "dark" || wanted === "light" ? wanted : "";
    if (known) root.dataset.theme = known; else delete root.dataset.theme;
    theme.value = known;
  };
  theme.addEventListener("change", () => { put("theme", theme.value); colour(); });

  const rows = (table) => all("tbody > tr:not(.section)", table);
  const order = new Map(); // row -> its place before any sorting
  for (const row of all("table.sortable tbody > tr:not(.section)")) order.set(row, order.size);
  const cell = (row, i) => row.cells[i];

  const sort = (table, key, way) => {
    const heads = all("thead th", table);
    const at = heads.findIndex((th) => th.dataset.key === key);
    for (const th of heads) {
      th.removeAttribute("aria-sort");
      if (way && th.dataset.key === key) {
        th.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      }
    }
    for (const part of table.tBodies) {
      const lines = rows(part);
      lines.sort((a, b) => {
        if (way && at >= 0) {
          const [x, y] = [a, b].map((row) => cell(row, at).dataset.v);
          if (at === 0) {
            const names = cell(a, 0).textContent.localeCompare(cell(b, 0).textContent, "en");
            if (names) return way * names;
          } else if ((x === undefined) !== (y === undefined)) {
            return x === undefined ? 1 : -1;
          } else if (x !== undefined && +x !== +y) {
            return way * (+x - +y);
          }
        }
        return order.get(a) - order.get(b);
      });
      part.append(...lines);
    }
  };

  const search = (table, words) => {
    const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const part of table.tBodies) {
      let any = false;
      const section = part.querySelector("tr.section");
      const title = section ? section.textContent.toLowerCase() : "";
      for (const row of rows(part)) {
        const text = row.cells[0].textContent.toLowerCase() + " " + title;
        row.hidden = !wanted.every((word) => text.includes(word));
        any = any || !row.hidden;
        shown += !row.hidden;
      }
      part.hidden = !any;
    }
    const count = document.querySelector(`output[data-table="${table.id}"]`);
    if (count) count.textContent = wanted.length ? `${shown} of ${rows(table).length} rows` : "";
  };

  const guarded = (text) => {
    const number = /^[-+]?[\d.,]+%?$/.test(text);
    const safe = /^[=+\-@\t\r]/.test(text) && !number ? "'" + text : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const save = (table) => {
    const plain = (one) => guarded(one.textContent.replace(/\s+/g, " ").trim());
    const keep = all("thead th", table).map((th) => !th.querySelector("svg") || th.dataset.first);
    const head = all("thead th", table).map((th) => guarded(th.dataset.text));
    const lines = [["section", ...head.filter((_, i) => keep[i])]];
    for (const part of table.tBodies) {
      const section = part.querySelector("tr.section");
      for (const row of rows(part)) {
        if (row.hidden) continue;
        const cells = [...row.cells].filter((_, i) => keep[i]).map(plain);
        lines.push([section ? plain(section) : "", ...cells]);
      }
    }
    const text = lines.map((line) => line.join(",")).join("\n") + "\n";
    const a = document.createElement("a");
    a.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    a.download = `${page.board || "debiasbench"}-${table.id}.csv`;
    a.click();
    URL.revokeObjectURL(a.href);
  };

  for (const table of all("table.sortable")) {
    for (const th of all("thead th", table)) {
      th.dataset.text = th.firstChild ? th.firstChild.textContent.trim() : "";
      if (!th.dataset.first || rows(table).length < 2) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(th.firstChild);
      th.prepend(button);
      button.addEventListener("click", () => {
        const first = +th.dataset.first, now = th.getAttribute("aria-sort");
        const way = now === null ? first : (now === "ascending") === (first > 0) ? -first : 0;
        sort(table, th.dataset.key, way);
        put("sort", way ? `${table.id}~${th.dataset.key}~${way}` : "");
      });
    }
  }
  for (const field of all("input.search")) {
    field.addEventListener("input", () => {
      search(document.getElementById(field.dataset.table), field.value);
      put("q", field.value);
    });
  }
  for (const button of all("button.save")) {
    button.addEventListener("click", () => save(document.getElementById(button.dataset.table)));
  }

  let sorted = null;
  const restore = () => {
    colour();
    const state = read(), [name, key, way] = (state.get("sort") || "").split("~");
    const table = document.getElementById(name);
    if (sorted && sorted !== table) sort(sorted, "", 0);
    sorted = null;
    if (table && table.matches("table.sortable") && ["1", "-1"].includes(way)) {
      sort(table, key, +way);
      sorted = table;
    }
    const words = state.get("q") || "";
    for (const field of all("input.search")) {
      field.value = words;
      search(document.getElementById(field.dataset.table), words);
    }
  };
  addEventListener("hashchange", restore);
  for (const part of all(".tools[hidden]")) part.hidden = false;
  restore();
})();
