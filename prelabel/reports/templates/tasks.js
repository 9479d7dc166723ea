// Search, filter and order of the list of tasks. Without scripts, the page shows all tasks, those to look at first.
const [search, state, order, found, list] = ["search", "state", "order", "found", "list"].map(id => document.getElementById(id));
const tasks = [...list.children].map((element, rank) => ({ element, rank, text: element.dataset.find }));

const titles = new Intl.Collator("en", { numeric: true });

function value(task, key) {
  return key in task.element.dataset ? Number(task.element.dataset[key]) : NaN;
}

function compare(one, other) {
  if (order.value === "title") return titles.compare(one.text, other.text);
  const [a, b] = [value(one, order.value), value(other, order.value)];
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b) || one.rank - other.rank;
  return ("falls" in order.selectedOptions[0].dataset ? b - a : a - b) || one.rank - other.rank;
}

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let number = 0;
  for (const task of tasks) {
    const isShown = words.every(word => task.text.includes(word)) && (!state.value || task.element.dataset.state === state.value);
    task.element.hidden = !isShown;
    number += isShown;
  }
  const all = `${tasks.length.toLocaleString("en")} tasks`;
  found.textContent = number === tasks.length ? all : `${number.toLocaleString("en")} of ${all}`;
}

function sort() {
  const sorted = order.value ? tasks.toSorted(compare) : tasks;
  list.append(...sorted.map(task => task.element));
}

search.form.hidden = false;
search.form.addEventListener("submit", event => event.preventDefault());
search.addEventListener("input", filter);
state.addEventListener("change", filter);
order.addEventListener("change", sort);
filter(); // a browser may fill in the fields again when it goes back to the page
sort();
