/** Formats numbers for people. */

/** 950, 12.3k, 4.5M, 2.1B. */
export function count(n: number, digits = 3): string {
  const size = Math.abs(n)
  for (const [unit, letter] of [
    [1e18, 'E'],
    [1e15, 'P'],
    [1e12, 'T'],
    [1e9, 'B'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const) {
    if (size >= unit) return `${trim(n / unit, digits)}${letter}`
  }
  return trim(n, digits)
}

function trim(n: number, digits: number): string {
  return String(Number(n.toPrecision(Math.min(15, Math.max(1, digits)))))
}

/** 42s, 3m 05s, 2h 10m, 3d 4h. */
export function duration(seconds: number): string {
  const s = Math.max(0, Math.round(seconds))
  const two = (n: number): string => String(n).padStart(2, '0')
  if (s < 60) return `${s}s`
  if (s < 3600) return `${Math.floor(s / 60)}m ${two(s % 60)}s`
  if (s < 86_400) return `${Math.floor(s / 3600)}h ${two(Math.floor((s % 3600) / 60))}m`
  return `${Math.floor(s / 86_400)}d ${Math.floor((s % 86_400) / 3600)}h`
}

/** A value with about four digits: 3.214, 0.0123, 3.2e-5. */
export function value(n: number): string {
  const size = Math.abs(n)
  if (size === 0) return '0'
  if (size < 1e-3 || size >= 1e6) return n.toExponential(2)
  if (size >= 1000) return n.toFixed(0)
  return n.toPrecision(4)
}

/** A value as short as its axis allows: 2, 2.5, 3e-4. */
export function tick(n: number, digits: number): string {
  const size = Math.abs(n)
  const short = Number(n.toPrecision(digits))
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? short.toExponential() : String(short)
}

/** 41.3%. */
export function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(1)}%`
}

/** A whole number with thin spaces between its thousands. */
export function whole(n: number): string {
  return String(Math.round(n)).replace(/\B(?=(\d{3})+$)/g, '\u2009')
}

/** MiB as MiB or GiB. */
export function mebibytes(n: number): string {
  return n < 1024 ? `${n.toFixed(0)} MiB` : `${(n / 1024).toFixed(1)} GiB`
}
