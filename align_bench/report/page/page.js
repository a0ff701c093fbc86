"use strict";

const embedded = (id) => JSON.parse(document.getElementById(id).textContent);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// Control characters and marks of direction are shown by their code: they change nothing but what they show.
const visible = (text) =>
  text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]/gu,
    (mark) => "\\u" + mark.codePointAt(0).toString(16).padStart(4, "0"));

// Light and dark: what the system asks for, until the reader decides.

const root = document.documentElement;
const system = window.matchMedia("(prefers-color-scheme: dark)");
const themeButton = document.getElementById("theme");
const setTheme = (dark) => {
  root.dataset.theme = dark ? "dark" : "light";
  themeButton.textContent = dark ? "Light" : "Dark";
};
setTheme(system.matches);
system.addEventListener("change", (event) => setTheme(event.matches));
themeButton.addEventListener("click", () => setTheme(root.dataset.theme !== "dark"));
let before;
let folded = [];
window.addEventListener("beforeprint", () => {
  before = root.dataset.theme;
  setTheme(false);
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const one of folded) one.open = true;
});
window.addEventListener("afterprint", () => {
  setTheme(before === "dark");
  for (const one of folded) one.open = false;
});
document.getElementById("print").addEventListener("click", () => window.print());

// Chapters fold. A link into a folded one opens it.

const chapters = [...document.querySelectorAll("details.chapter")];
const foldButton = document.getElementById("fold");
const allOpen = () => chapters.every((chapter) => chapter.open);
const nameFold = () => { foldButton.textContent = allOpen() ? "Fold all" : "Open all"; };
foldButton.addEventListener("click", () => {
  const open = !allOpen();
  for (const chapter of chapters) chapter.open = open;
});
for (const chapter of chapters) chapter.addEventListener("toggle", nameFold);
nameFold();
const openTo = (id) => {
  const target = document.getElementById(id);
  if (!target) return;
  for (const own of target.querySelectorAll(":scope > details.chapter")) own.open = true;
  for (let around = target.closest("details"); around; around = around.parentElement.closest("details")) around.open = true;
};
for (const link of document.querySelectorAll('a[href^="#"]')) {
  link.addEventListener("click", () => openTo(link.hash.slice(1)));
}

// What is wider than its place says so, and has a shadow where more of it is.

const showEdges = (box) => {
  const rest = box.scrollWidth - box.clientWidth;
  box.classList.toggle("wide", rest > 1);
  box.classList.toggle("more-left", box.scrollLeft > 1);
  box.classList.toggle("more-right", box.scrollLeft < rest - 1);
  if (box.previousElementSibling) box.previousElementSibling.hidden = rest <= 1;
};
const sizes = new ResizeObserver((entries) => { for (const entry of entries) showEdges(entry.target); });
for (const box of document.querySelectorAll(".scroll, nav ul")) {
  sizes.observe(box);
  box.addEventListener("scroll", () => showEdges(box), { passive: true });
}

// Tables are sorted by a click on a heading: by a cell's number in full, or by the first one in its text.

const numberIn = (cell) => {
  const number = cell.dataset.value ?? cell.textContent.match(/[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?/)?.[0];
  return number ? Number(number) : NaN;
};
const sortTable = (heading) => {
  const table = heading.closest("table");
  const column = [...heading.parentElement.children].indexOf(heading);
  const numeric = heading.classList.contains("number");
  const sign = heading.ariaSort === (numeric ? "descending" : "ascending") ? (numeric ? 1 : -1) : (numeric ? -1 : 1);
  const compare = (rowA, rowB) => {
    const [a, b] = [rowA.children[column], rowB.children[column]];
    if (!numeric) return sign * a.textContent.localeCompare(b.textContent);
    const [x, y] = [numberIn(a), numberIn(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y); // n/a stays last
    return sign * (x - y);
  };
  for (const other of heading.parentElement.children) other.removeAttribute("aria-sort");
  heading.ariaSort = sign > 0 ? "ascending" : "descending";
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
};
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => sortTable(button.parentElement));
}

// The numbers behind a figure, as CSV. Text that a spreadsheet would run as a formula gets an apostrophe.

const csvField = (value) => {
  if (value === null) return "";
  if (typeof value === "number") return String(value);
  return '"' + value.replace(/^(?=[=+\-@\t\r])/, "'").replaceAll('"', '""') + '"';
};
for (const button of document.querySelectorAll("button[data-numbers]")) {
  button.addEventListener("click", () => {
    const { columns, rows } = embedded(button.dataset.numbers + "-numbers");
    const lines = [columns, ...rows].map((row) => row.map(csvField).join(","));
    const url = URL.createObjectURL(new Blob([lines.join("\r\n") + "\r\n"], { type: "text/csv" }));
    make("a", { href: url, download: button.dataset.numbers + ".csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  });
}

// Example by example: one prompt, the reference's answer and the policies' beside it.

const PER_PAGE = 25;
const browse = (data) => {
  const find = (id) => document.getElementById(id);
  const [search, policy, reference, judge, outcome, order] =
    ["search", "policy", "reference", "judge", "outcome", "order"].map((name) => find("example-" + name));
  const list = find("example-list");
  const labels = Object.fromEntries(data.cells.map(({ name, label }) => [name, label]));
  const byGold = data.judges.indexOf(data.gold_judge);
  const shown = new Set(data.cells.slice(0, 5).map((cell) => cell.name));
  let found = [];
  let place = 0;

  // A cell's score on a prompt: the mean over its samples; null where it has none.
  const score = (cell, prompt) => {
    const at = data.judges.indexOf(judge.value);
    const known = (data.answers[cell][prompt] ?? []).map((answer) => answer.scores[at]).filter((one) => one !== null && one !== undefined);
    return known.length ? known.reduce((sum, one) => sum + one, 0) / known.length : null;
  };
  const gain = (cell, prompt) => {
    const [own, other] = [score(cell, prompt), score(reference.value, prompt)];
    return own === null || other === null ? null : own - other;
  };
  const inWords = (difference) => difference > 0 ? "win" : difference < 0 ? "loss" : "tie";
  const signed = (number) => (number >= 0 ? "+" : "−") + Math.abs(number).toFixed(3);

  const filter = () => {
    const wanted = search.value.trim().toLowerCase();
    const holds = (index) => {
      const difference = gain(policy.value, index);
      if (outcome.value !== "all" && (difference === null || inWords(difference) !== outcome.value)) return false;
      if (!wanted) return true;
      const texts = [data.prompts[index], ...data.cells.flatMap(({ name }) => (data.answers[name][index] ?? []).map((answer) => answer.text))];
      return texts.some((text) => text.toLowerCase().includes(wanted));
    };
    found = data.prompts.map((_, index) => index).filter(holds);
    const least = order.value === "loss" ? 1 : -1;
    if (order.value !== "file") {
      const by = (index) => gain(policy.value, index) ?? -least * Infinity;
      found.sort((a, b) => least * (by(a) - by(b)) || a - b);
    }
    place = 0;
    draw();
  };

  const draw = (focus = false) => {
    const first = PER_PAGE * Math.floor(place / PER_PAGE);
    const items = found.slice(first, first + PER_PAGE).map((index, offset) => {
      const difference = gain(policy.value, index);
      const button = make("button", { type: "button" },
        make("span", { textContent: visible(data.prompts[index]).slice(0, 200), title: "" }),
        make("span", { className: "quiet", textContent: difference === null ? "" : signed(difference) }));
      button.ariaCurrent = String(first + offset === place);
      button.tabIndex = first + offset === place ? 0 : -1;
      button.addEventListener("click", () => { place = first + offset; draw(true); });
      return make("li", {}, button);
    });
    list.replaceChildren(...items);
    const current = list.querySelector('[aria-current="true"]');
    if (current) list.scrollTop = Math.max(0, current.parentElement.offsetTop - list.offsetTop - 80);
    if (focus && current) current.focus({ preventScroll: true });
    find("example-count").textContent = found.length
      ? `Prompt ${place + 1} of ${found.length} (${data.prompts.length} in the page)` : "No prompt matches.";
    find("example-previous").disabled = place === 0;
    find("example-next").disabled = place >= found.length - 1;
    show();
  };

  const show = () => {
    const target = find("example-view");
    if (!found.length) return target.replaceChildren();
    const index = found[place];
    const cards = data.cells.filter(({ name }) => shown.has(name)).flatMap(({ name }) => {
      const difference = gain(name, index);
      const versus = name === reference.value || difference === null ? "" : ` · ${inWords(difference)} ${signed(difference)}`;
      return (data.answers[name][index] ?? []).map((answer) => {
        const scores = data.judges.map((one, at) => [one, answer.scores[at]]).filter(([, one]) => one !== null);
        const verdict = { 1: "✓ right", 0: "✗ not right" }[answer.scores[byGold]]; // says what gold's score does
        return make("article", { className: "answer" },
          make("h3", { textContent: visible(labels[name]) + versus, title: visible(name) }),
          ...(verdict ? [make("div", { className: "verdict", textContent: verdict })] : []),
          make("div", { className: "quiet", textContent: [...scores.filter(([one]) => !verdict || one !== data.gold_judge).map(([one, value]) => `${visible(one)} ${value.toFixed(3)}`),
            `${answer.tokens} tokens`, ...(answer.finished ? [] : ["truncated"])].join(" · ") }),
          make("div", { className: "text", textContent: visible(answer.text) || "(empty)", tabIndex: 0 }),
          ...(answer.left ? [make("div", { className: "quiet", textContent: `… ${answer.left} more characters in generations.jsonl` })] : []));
      });
    });
    const right = data.right[index];
    target.replaceChildren(
      make("p", { className: "quiet" }, `Validation pair ${data.ids[index]} · `,
        make("a", { href: `#example=${data.ids[index]}`, textContent: "link to this example" })),
      make("div", { className: "prompt text", textContent: visible(data.prompts[index]), tabIndex: 0 }),
      ...(right === null ? [] : [make("div", { className: "right text", tabIndex: 0 },
        make("strong", { textContent: "Right answer: " }), visible(right))]),
      make("div", { className: "answers" }, ...cards));
  };

  const move = (step, focus) => {
    const next = place + step;
    if (next >= 0 && next < found.length) { place = next; draw(focus); }
  };
  const boxes = find("example-cells");
  for (const { name } of data.cells) {
    const box = make("input", { type: "checkbox", checked: shown.has(name) });
    box.addEventListener("change", () => { box.checked ? shown.add(name) : shown.delete(name); show(); });
    boxes.append(make("label", { title: visible(name) }, box, visible(labels[name])));
  }
  search.addEventListener("input", filter);
  for (const control of [policy, reference, judge, outcome, order]) control.addEventListener("change", filter);
  find("example-previous").addEventListener("click", () => move(-1, false));
  find("example-next").addEventListener("click", () => move(1, false));
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (step) { event.preventDefault(); move(step, true); }
  });
  filter();

  // `#example=12` opens the example of that number in the data.
  const follow = () => {
    const id = location.hash.match(/^#example=(\d+)$/)?.[1];
    if (id === undefined) return;
    openTo("examples");
    const index = data.ids.indexOf(Number(id));
    if (index < 0) {
      find("example-count").textContent = `Example ${id} is not in the page.`;
    } else {
      if (!found.includes(index)) {
        search.value = "";
        outcome.value = "all";
        filter();
      }
      place = found.indexOf(index);
      draw(true);
    }
    find("example-count").scrollIntoView();
  };
  window.addEventListener("hashchange", follow);
  follow();
};
openTo(location.hash.slice(1));
if (document.getElementById("examples-data")) browse(embedded("examples-data"));
