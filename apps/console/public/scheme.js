// Before the first paint: light or dark as the reader chose, else as their system has it.
try {
  const chosen = localStorage.getItem('mantine-color-scheme-value');
  const dark = chosen === 'dark' || (chosen !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches);
  document.documentElement.dataset.mantineColorScheme = dark ? 'dark' : 'light';
} catch {
  // Storage is refused: the page stays light until the console has started.
  document.documentElement.dataset.mantineColorScheme = 'light';
}
