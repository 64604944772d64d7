// What views share of the page they live in: making elements, hearing of changes in the model, of sizes and of themes.

function make(tag, where, attributes = {}, text = "") {
  const node = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) node.setAttribute(k, v);
  node.textContent = text;
  where.append(node);
  return node;
}

/** Calls `events` of the model, and `dress` when the element's size or the page's theme changes. Returns what ends that. */
function follow(model, events, element, dress) {
  for (const [name, f] of Object.entries(events)) model.on(name, f);
  const resized = new ResizeObserver(dress), themed = new MutationObserver(dress), dark = matchMedia("(prefers-color-scheme: dark)");
  resized.observe(element);
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-name"] });
  dark.addEventListener("change", dress);
  return () => {
    for (const [name, f] of Object.entries(events)) model.off(name, f);
    resized.disconnect();
    themed.disconnect();
    dark.removeEventListener("change", dress);
  };
}
