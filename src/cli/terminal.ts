/** What a terminal can show: its width, emphasis, lines that fit, a sparkline. */

/** Columns of a terminal that does not report its width. */
const DEFAULT_COLUMNS = 100

/** Returns the width of a terminal in columns; null if the stream is not a terminal. */
export function columnsOf(stream: NodeJS.WriteStream): number | null {
  // A terminal of unknown width reports 0 columns.
  return stream.isTTY ? stream.columns || DEFAULT_COLUMNS : null
}

/** Returns whether text for a stream may be styled (https://no-color.org). */
export function hasColour(stream: NodeJS.WriteStream): boolean {
  const { NO_COLOR, TERM, FORCE_COLOR } = process.env
  if (NO_COLOR !== undefined && NO_COLOR !== '') return false
  if (FORCE_COLOR !== undefined && FORCE_COLOR !== '0' && FORCE_COLOR !== '') return true
  return stream.isTTY === true && TERM !== 'dumb'
}

/** Dims text if the stream may be styled. */
export function dim(text: string, stream: NodeJS.WriteStream): string {
  return hasColour(stream) ? `\x1b[2m${text}\x1b[22m` : text
}

/**
 * Joins the parts of a line, in order, leaving out the last ones that do not fit. The first always
 * stays.
 */
export function fit(parts: readonly string[], columns: number): string {
  let line = parts[0] ?? ''
  for (const part of parts.slice(1)) {
    if (line.length + 2 + part.length > columns) return line
    line += `  ${part}`
  }
  return line
}

/** Breaks a line between words to fit a terminal; all but the first row are indented. */
export function wrap(text: string, columns: number | null, indent: number): string {
  if (columns === null) return text
  const rows: string[] = []
  let row = ''
  for (const word of text.match(/ *[^ ]+/g) ?? []) {
    if (row !== '' && row.length + word.length >= columns) {
      rows.push(row)
      row = `${' '.repeat(indent)}${word.trimStart()}`
    } else row += word
  }
  return [...rows, row].join('\n')
}

const BAR_WIDTH = 20

/** Draws the bar of a progress line. */
export function bar(done: number, total: number): string {
  const filled = Math.min(BAR_WIDTH, Math.round((done / Math.max(1, total)) * BAR_WIDTH))
  return `${'█'.repeat(filled)}${'░'.repeat(BAR_WIDTH - filled)}`
}

const BLOCKS = '▁▂▃▄▅▆▇█'

/** Draws values as at most `width` blocks of eight heights, each the mean of an equal stretch. */
export function sparkline(values: readonly number[], width: number): string {
  const finite = values.filter((value) => Number.isFinite(value))
  const bins = Math.min(width, finite.length)
  const means = Array.from({ length: bins }, (_, i) => {
    const from = Math.floor((i * finite.length) / bins)
    const stretch = finite.slice(from, Math.floor(((i + 1) * finite.length) / bins))
    return stretch.reduce((sum, value) => sum + value, 0) / stretch.length
  })
  const low = Math.min(...means)
  const range = Math.max(...means) - low
  return means
    .map((value) => BLOCKS[range > 0 ? Math.round(((value - low) / range) * 7) : 0])
    .join('')
}
