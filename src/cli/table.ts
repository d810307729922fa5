/** Tables of text. */

/**
 * Lays out rows under the names of their columns.
 *
 * @param head - names of the columns; a column whose name begins with > is aligned to the right.
 */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const names = head.map((name) => name.replace(/^>/, ''))
  const lines = [names, ...rows]
  const widths = head.map((_, column) =>
    Math.max(...lines.map((cells) => (cells[column] ?? '').length)),
  )
  const align = (cell: string, column: number): string =>
    head[column]!.startsWith('>') ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)
  return lines.map((cells) => cells.map(align).join('  ').trimEnd()).join('\n')
}
