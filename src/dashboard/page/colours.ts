/**
 * The colours of runs: told apart with each kind of colour blindness (after Okabe and Ito, "Color
 * Universal Design", https://jfly.uni-koeln.de/color/), and by dashes from the fifth on.
 */

const NUMBER = 8

/** The place of a run's colour in the palette. */
export function slot(id: number): number {
  return id % NUMBER
}

/** Returns the colour of a run in the current theme. */
export function colourOf(id: number): string {
  return variable(`--run-${slot(id)}`)
}

/** Returns the dashes of a run's lines; none for the first ones. */
export function dashesOf(id: number): number[] {
  return [[], [8, 4], [2, 3]][Math.floor((id % 12) / 4)] ?? []
}

/** Returns a colour of the current theme. */
export function variable(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim()
}

/** Returns a colour, let through by `alpha` (two hexadecimal digits). */
export function faded(colour: string, alpha: string): string {
  return `${colour}${alpha}`
}

const THEMES = ['auto', 'light', 'dark'] as const
const SYMBOLS = { auto: '◐', light: '☀', dark: '☾' }
const NAMES = { auto: 'automatic', light: 'light', dark: 'dark' }

/** Lets a button switch between the system's theme, light and dark. */
export function setUpTheme(button: HTMLElement, onChange: () => void): void {
  let theme = THEMES.find((name) => name === localStorage.getItem('kindling-theme')) ?? 'auto'
  const apply = (): void => {
    document.documentElement.dataset['theme'] = theme
    button.textContent = SYMBOLS[theme]
    button.setAttribute('aria-label', `Colour theme: ${NAMES[theme]}`)
    button.title = `Colour theme: ${NAMES[theme]}`
  }
  apply()
  button.addEventListener('click', () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]!
    localStorage.setItem('kindling-theme', theme)
    apply()
    onChange()
  })
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', onChange)
}
