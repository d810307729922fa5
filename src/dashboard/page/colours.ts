/**
 * The colours of runs. They can be distinguished with every kind of colour blindness (after Okabe
 * and Ito, "Color Universal Design", https://jfly.uni-koeln.de/color/). From the fifth run on,
 * lines are dashed as well.
 */

const NUMBER = 8

/** Returns the index of a run's colour in the palette. */
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

/** Colours of the current theme that have been looked up. */
const known = new Map<string, string>()

/** Returns a colour of the current theme, as `rgb(...)`. */
export function variable(name: string): string {
  const colour = known.get(name) ?? lookUp(name)
  known.set(name, colour)
  return colour
}

/**
 * Resolves a CSS variable through an element, since its own value names the colours of both themes
 * (`light-dark`).
 */
function lookUp(name: string): string {
  const probe = document.createElement('i')
  probe.style.color = `var(${name})`
  document.documentElement.append(probe)
  const { color } = getComputedStyle(probe)
  probe.remove()
  return color
}

/** Returns a colour from `variable` with opacity `alpha`. */
export function faded(colour: string, alpha: number): string {
  return colour.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`)
}

const THEMES = ['auto', 'light', 'dark'] as const
const SYMBOLS = { auto: '◐', light: '☀', dark: '☾' }
const NAMES = { auto: 'automatic', light: 'light', dark: 'dark' }

/** Lets a button switch between the system's theme, light and dark. */
export function setUpTheme(button: HTMLElement, onChange: () => void): void {
  let theme = THEMES.find((name) => name === localStorage.getItem('kindling-theme')) ?? 'auto'
  const apply = (): void => {
    known.clear()
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
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    known.clear()
    onChange()
  })
}
