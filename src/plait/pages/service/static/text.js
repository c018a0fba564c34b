// What the page shows in words: messages of the language, numbers, and elements without any HTML in strings.

export const facts = JSON.parse(document.getElementById("facts").textContent);

export function t(key, words = {}) {
  return facts.messages[key].replace(/\{(\w+)\}/g, (_, name) => String(words[name]));
}

const formats = new Map();

export function number(amount, digits = 4) {
  if (!formats.has(digits)) {
    formats.set(digits, new Intl.NumberFormat(facts.language, { maximumSignificantDigits: digits }));
  }
  return formats.get(digits).format(amount);
}

// Rounding must not turn what is nearly sure into certainty.
export function probability(p) {
  if (p > 0 && p < 0.0005) return "< 0.001";
  if (p < 1 && p > 0.9995) return "> 0.999";
  const isNearEnd = (p > 0 && p < 0.005) || (p < 1 && p > 0.995);
  return p.toFixed(isNearEnd ? 3 : 2);
}

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, setting] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), setting);
    else if (setting === true) made.setAttribute(name, "");
    else if (setting !== false && setting !== null && setting !== undefined) made.setAttribute(name, setting);
  }
  made.append(...children);
  return made;
}

export function say(text) {
  // The same words again are announced only if the region changes.
  const region = document.getElementById("spoken");
  region.textContent = "";
  setTimeout(() => { region.textContent = text; }, 50);
}
