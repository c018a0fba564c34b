// Runs before the page is drawn, so that it does not flash in the wrong colours.
try {
  const theme = localStorage.getItem("plait-theme");
  if (theme) document.documentElement.dataset.theme = theme;
} catch {
  // A browser may forbid storage; then the colours are those of the system.
}
