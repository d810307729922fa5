/** Plots lines as text, each with a character of its own. The axes are labelled at their ends. */

/** A line of a plot. */
export interface TextLine {
  /** The character that draws it. */
  mark: string
  x: readonly number[]
  y: readonly number[]
}

/** Size of a plot in characters, including its labels. */
export interface PlotSize {
  columns: number
  rows: number
}

const LABEL = 8

/**
 * Draws lines over each other; where two meet, the later one is visible. Each column shows the mean
 * of its values.
 *
 * @param top - upper end of the y axis; lines are clipped to it.
 */
export function textPlot(lines: readonly TextLine[], size: PlotSize, top: number): string[] {
  const shown = lines.map((line) => ({ ...line, y: line.y.map((y) => Math.min(y, top)) }))
  const xs = shown.flatMap(({ x }) => x)
  const ys = shown.flatMap(({ y }) => y)
  if (xs.length === 0) return []
  const width = Math.max(8, size.columns - LABEL - 2)
  const across = { low: Math.min(...xs), high: Math.max(...xs), cells: width }
  const down = { low: Math.min(...ys), high: Math.max(...ys), cells: size.rows }
  const grid = Array.from({ length: size.rows }, () => Array.from({ length: width }, () => ' '))
  for (const { mark, x, y } of shown) {
    for (const [column, value] of meansByColumn(x, y, across)) {
      grid[size.rows - 1 - cellOf(value, down)]![column] = mark
    }
  }
  const label = (row: number): string => {
    if (row === 0) return down.high.toFixed(3)
    return row === size.rows - 1 ? down.low.toFixed(3) : ''
  }
  const ends = [String(across.low), String(across.high)] as const
  return [
    ...grid.map((cells, row) => `${label(row).padStart(LABEL)} │${cells.join('')}`.trimEnd()),
    `${' '.repeat(LABEL)} └${'─'.repeat(width)}`,
    `${' '.repeat(LABEL + 2)}${ends[0]}${ends[1].padStart(width - ends[0].length)}`,
  ]
}

interface Span {
  low: number
  high: number
  cells: number
}

function cellOf(value: number, { low, high, cells }: Span): number {
  return high > low ? Math.round(((value - low) / (high - low)) * (cells - 1)) : 0
}

function meansByColumn(
  x: readonly number[],
  y: readonly number[],
  across: Span,
): Map<number, number> {
  const values = new Map<number, number[]>()
  for (const [i, at] of x.entries()) {
    const column = cellOf(at, across)
    values.set(column, [...(values.get(column) ?? []), y[i]!])
  }
  const mean = (list: readonly number[]): number =>
    list.reduce((sum, value) => sum + value, 0) / list.length
  return new Map([...values].map(([column, list]) => [column, mean(list)]))
}
