"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SHOWN = 25; // rows of a table until somebody asks for more
  const UNITS = ["kB", "MB", "GB", "TB", "PB", "EB"];

  function human(size) { // as ocistow prints it
    if (Math.abs(size) < 1000) return `${size} B`;
    let value = size;
    for (const unit of UNITS) {
      value /= 1000;
      if (Math.abs(value) < 999.95 || unit === "EB") return `${value.toFixed(1)} ${unit}`;
    }
  }
  const counted = (number, noun) =>
    `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

  function make(tag, text, name) { // text is never markup
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  }

  // --- the treemap

  const map = document.getElementById("map");
  const way = document.getElementById("way");
  const said = document.getElementById("said");
  const tip = document.getElementById("tip");
  const HEADER = 21; // CSS pixels of a name above what it holds
  let path = [tree(data.tree)];

  function tree(list) { // [name, size, exclusive, images, smaller, children]
    const [name, size, exclusive, images, smaller, children] = list;
    return { name, size, exclusive, images, smaller, children: children.map(tree) };
  }

  const titled = node => node.name || `and ${counted(node.smaller, "smaller one")}`;

  function step(node) { // the class of its colour
    if (!node.images) return "sn";
    return `s${Math.round((4 * node.exclusive) / (node.size || 1))}`;
  }

  function parts(node) { // what is inside; an image has two parts
    if (node.children.length || !node.images || node.smaller) return node.children;
    const rest = { images: 1, smaller: 0, children: [] };
    return [
      { ...rest, name: "only in this image", size: node.exclusive, exclusive: node.exclusive },
      { ...rest, name: "its part of what it shares", size: node.size - node.exclusive, exclusive: 0 },
    ];
  }

  function worst(row, side) {
    const total = row.reduce((a, b) => a + b, 0);
    return Math.max((side ** 2 * Math.max(...row)) / total ** 2, total ** 2 / (side ** 2 * Math.min(...row)));
  }

  function squarified(nodes, left, top, width, height) {
    const total = nodes.reduce((sum, node) => sum + node.size, 0);
    const areas = nodes.map(node => (node.size * width * height) / total);
    const found = [];
    for (let at = 0; at < areas.length; ) {
      const side = Math.min(width, height);
      let end = at + 1;
      while (end < areas.length && worst(areas.slice(at, end + 1), side) <= worst(areas.slice(at, end), side)) end++;
      const row = areas.slice(at, end);
      const thick = side ? row.reduce((a, b) => a + b, 0) / side : 0;
      let along = width < height ? left : top;
      for (const area of row) {
        const length = thick ? area / thick : 0;
        found.push(width < height ? [along, top, length, thick] : [left, along, thick, length]);
        along += length;
      }
      if (width < height) { top += thick; height = Math.max(0, height - thick); }
      else { left += thick; width = Math.max(0, width - thick); }
      at = end;
    }
    return found;
  }

  function placed(nodes, left, top, width, height) {
    const drawn = nodes.filter(node => node.size > 0).sort((a, b) => b.size - a.size);
    const places = squarified(drawn, left, top, width, height);
    return drawn.map((node, number) => [node, ...places[number]]);
  }

  function put(element, left, top, width, height, around) { // in shares, so that paper scales it
    const style = element.style;
    style.left = `${(100 * left) / around.width}%`;
    style.top = `${(100 * top) / around.height}%`;
    style.width = `${(100 * width) / around.width}%`;
    style.height = `${(100 * height) / around.height}%`;
  }

  function labelled(node, width) {
    const label = make("span", titled(node), "name");
    if (width > 150) label.append(make("small", human(node.size)));
    return label;
  }

  function draw() {
    const around = { width: map.clientWidth, height: map.clientHeight };
    if (!around.width || !around.height) return;
    const here = path[path.length - 1];
    map.replaceChildren();
    for (const [node, left, top, width, height] of placed(parts(here), 0, 0, around.width, around.height)) {
      const deeper = parts(node).some(part => part.size) && !(here.children.length === 0);
      const box = make(deeper ? "button" : "div", undefined, `box ${step(node)}`);
      if (!deeper) { box.classList.add("leaf"); box.style.pointerEvents = "auto"; box.tabIndex = 0; box.setAttribute("role", "img"); }
      else box.type = "button";
      box.setAttribute("aria-label", told(node));
      put(box, left, top, width, height, around);
      if (width > 34 && height > 20) box.append(labelled(node, width));
      if (deeper && width > 24 && height > HEADER + 16) {
        const inside = { width, height };
        for (const [part, l, t, w, h] of placed(node.children, 3, HEADER, width - 8, height - HEADER - 5)) {
          const leaf = make("span", undefined, `leaf ${step(part)}`);
          put(leaf, l, t, w, h, inside);
          if (w > 44 && h > 20) leaf.append(labelled(part, w));
          leaf.node = part;
          box.append(leaf);
        }
      }
      box.addEventListener("click", event => deeper && enter(node, event.detail === 0));
      hint(box, node);
      map.append(box);
    }
    way.hidden = path.length === 1;
    way.replaceChildren();
    path.forEach((node, depth) => {
      if (depth) way.append(make("i", "\u203a"));
      const last = depth === path.length - 1;
      const name = make(last ? "span" : "button", titled(node));
      if (last) name.setAttribute("aria-current", "true");
      else name.addEventListener("click", () => { path = path.slice(0, depth + 1); draw(); focusFirst(); });
      way.append(name);
    });
  }

  function told(node) {
    const share = path[0].size ? (100 * node.size) / path[0].size : 0;
    const lines = [titled(node), `${human(node.size)}, ${share.toFixed(1)} % of ${path[0].name}`];
    if (node.images) lines.push(`${counted(node.images, "image")}, ${human(node.exclusive)} exclusive`);
    return lines.join("\n");
  }

  function enter(node, byKey) {
    path.push(node);
    draw();
    said.textContent = `Showing ${told(node)}`;
    tip.hidden = true;
    if (byKey) focusFirst();
  }

  function focusFirst() {
    const first = map.querySelector(".box");
    if (first) first.focus();
  }

  function hint(box, node) {
    const show = (what, x, y) => {
      tip.textContent = told(what);
      tip.hidden = false;
      const size = tip.getBoundingClientRect();
      tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - size.width - 4))}px`;
      tip.style.top = `${y + 20 + size.height > innerHeight ? Math.max(4, y - size.height - 10) : y + 20}px`;
    };
    box.addEventListener("mousemove", event => show(event.target.node || node, event.clientX, event.clientY));
    box.addEventListener("mouseleave", () => { tip.hidden = true; });
    box.addEventListener("focus", () => {
      if (!box.matches(":focus-visible")) return;
      const place = box.getBoundingClientRect();
      show(node, place.left, Math.min(place.bottom, innerHeight) - 30);
    });
    box.addEventListener("blur", () => { tip.hidden = true; });
  }

  addEventListener("keydown", event => {
    if (event.key !== "Escape") return;
    tip.hidden = true;
    if (path.length > 1 && (map.contains(document.activeElement) || way.contains(document.activeElement))) {
      path.pop();
      draw();
      said.textContent = `Showing ${told(path[path.length - 1])}`;
      focusFirst();
    }
  });
  new ResizeObserver(draw).observe(map);
  draw();

  // --- tables

  for (const [id, table] of Object.entries(data.tables)) sortable(document.getElementById(id), table);

  function sortable(section, table) {
    const body = section.querySelector("tbody");
    const heads = [...section.querySelectorAll("thead th")];
    const labels = heads.map(head => head.textContent);
    const tools = section.querySelector(".tools");
    const input = make("input");
    const output = make("output");
    const more = make("button", "Show all", "more");
    const names = table.rows.map(row => row.filter(cell => typeof cell === "string").join(" ").toLowerCase());
    let [by, down] = [table.by, true];
    let shown = SHOWN;
    let chosen = [];

    input.type = "search";
    input.placeholder = `Filter ${table.noun}s`;
    input.setAttribute("aria-label", `Filter ${table.noun}s by their words`);
    more.type = "button";
    tools.prepend(input);
    tools.append(output);
    tools.hidden = false;
    section.append(more);

    heads.forEach((head, column) => {
      const button = make("button", labels[column]);
      button.type = "button";
      button.addEventListener("click", () => {
        [by, down] = column === by ? [by, !down] : [column, typeof table.rows[0]?.[column] === "number"];
        choose();
      });
      head.replaceChildren(button);
    });
    input.addEventListener("input", () => { shown = SHOWN; choose(); });
    more.addEventListener("click", () => { shown = Infinity; fill(); });
    addEventListener("beforeprint", () => { shown = Infinity; fill(); });

    function choose() {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      chosen = [...table.rows.keys()].filter(row => words.every(word => names[row].includes(word)));
      chosen.sort((a, b) => {
        const [x, y] = [table.rows[a][by], table.rows[b][by]];
        const order = typeof x === "number" ? x - y : x < y ? -1 : x > y ? 1 : 0;
        return (down ? -order : order) || a - b;
      });
      heads.forEach((head, column) => {
        if (column === by) head.setAttribute("aria-sort", down ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      });
      const all = table.rows.length;
      output.textContent = chosen.length === all ? counted(all, table.noun) :
        `${chosen.length.toLocaleString("en")} of ${counted(all, table.noun)}`;
      fill();
    }

    function fill() {
      body.replaceChildren(...chosen.slice(0, shown).map(row => {
        const line = make("tr");
        table.rows[row].forEach((cell, column) => {
          const text = table.kinds[column] === "bytes" ? human(cell) :
            typeof cell === "number" ? cell.toLocaleString("en") : cell;
          const made = make("td", text, heads[column].className);
          made.dataset.label = labels[column];
          if (table.kinds[column] === "bytes") made.title = `${cell.toLocaleString("en")} bytes`;
          line.append(made);
        });
        return line;
      }));
      more.hidden = chosen.length <= shown;
      more.textContent = `Show all ${chosen.length.toLocaleString("en")}`;
    }
    choose();
  }
})();
