/** Numbers of a report, as people read them. */

/** 950, 12.3k, 4.5M, 2.1B; two numbers of one axis differ if `digits` allows. */
export function short(n: number, digits = 3): string {
  const size = Math.abs(n)
  for (const [unit, letter] of [
    [1e12, 'T'],
    [1e9, 'B'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const) {
    if (size >= unit) return `${Number((n / unit).toPrecision(digits))}${letter}`
  }
  return size > 0 && size < 1e-3
    ? Number(n.toPrecision(digits)).toExponential()
    : String(Number(n.toPrecision(digits)))
}

/** A whole number with spaces between its thousands. */
export function whole(n: number): string {
  return String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, '\u2009')
}
