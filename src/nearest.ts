/** Finds the known name that is nearest to a mistyped one. */

/** Two names with more edits than this are not similar. */
const MOST_EDITS = 3

/**
 * Returns the candidate with the fewest edits to `word`, or the first of several. Returns null if
 * none is similar: within three edits, and within a third of the length of the longer name.
 */
export function nearest(word: string, candidates: Iterable<string>): string | null {
  let best: string | null = null
  let fewest = MOST_EDITS + 1
  for (const candidate of candidates) {
    // Each of the letters more is an edit, and a word may be a text of megabytes.
    if (Math.abs(word.length - candidate.length) > MOST_EDITS) continue
    const edits = distance(word.toLowerCase(), candidate.toLowerCase())
    const allowed = Math.max(1, Math.floor(Math.max(word.length, candidate.length) / 3))
    if (edits < fewest && edits <= allowed) [best, fewest] = [candidate, edits]
  }
  return best
}

/** Returns the edits between two names: characters added, left out, replaced or swapped (OSA). */
function distance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)]
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = rows[i - 1]![j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      row[j] = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, replaced)
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      if (swapped) row[j] = Math.min(row[j]!, rows[i - 2]![j - 2]! + 1)
    }
    rows.push(row)
  }
  return rows[a.length]![b.length]!
}
