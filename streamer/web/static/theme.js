// Dark or light before the first picture of the page, so that nothing flashes. view.js changes it later.

{
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    // storage is forbidden: as the system
  }
  const light = matchMedia("(prefers-color-scheme: light)").matches;
  document.documentElement.dataset.theme = chosen || (light ? "light" : "dark");
}
