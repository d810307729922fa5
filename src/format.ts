/** Numbers as people read them. */

/** Formats seconds: 42s, 3m05s, 2h10m. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds))
  if (s < 60) return `${s}s`
  if (s < 3600) return `${Math.floor(s / 60)}m${String(s % 60).padStart(2, '0')}s`
  return `${Math.floor(s / 3600)}h${String(Math.floor((s % 3600) / 60)).padStart(2, '0')}m`
}

/** Formats a count: 950, 12.3k, 4.5M, 2.10B. */
export function count(n: number): string {
  if (n < 1000) return String(Math.round(n))
  if (n < 1e6) return `${(n / 1e3).toFixed(1)}k`
  if (n < 1e9) return `${(n / 1e6).toFixed(1)}M`
  return `${(n / 1e9).toFixed(2)}B`
}

/** Formats bytes as megabytes (10^6), without the unit. */
export function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1)
}

/** Formats bytes in units of 2^30, without the unit. */
export function gibibytes(bytes: number, digits: number): string {
  return (bytes / 2 ** 30).toFixed(digits)
}

/** Formats an amount of memory: 12 MiB, 2.1 GiB. */
export function memory(bytes: number): string {
  return bytes < 2 ** 30 ? `${Math.ceil(bytes / 2 ** 20)} MiB` : `${gibibytes(bytes, 1)} GiB`
}

/** Formats a fraction as a percentage with one decimal. */
export function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(1)}%`
}

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

/** A learning rate: 1e-3, 2.5e-4. */
export function learningRate(lr: number): string {
  return lr.toExponential().replace('e+', 'e')
}
