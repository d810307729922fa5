/**
 * Finds the command blocks of a Markdown page: fenced blocks in `sh`, `console`, `js`, `ts` and
 * `python`.
 *
 * `sh` holds commands. `console` holds commands after `$ ` and what they print, where `...` stands
 * for any text. `js` and `ts` are ES modules; one that begins with a line `// name.mjs` is only
 * saved under that name, for a later command.
 *
 * A comment `<!-- not run: reason -->` above a block leaves it out. `<!-- needs: package -->`
 * leaves it out if the package is missing; `python` needs one of the two.
 */

const LANGUAGES = new Set(['sh', 'console', 'js', 'ts', 'python'])
const FENCE = /^```(\w*)\s*$/
const NOT_RUN = /^<!-- not run: (.+) -->$/
const NEEDS = /^<!-- needs: (\S+) -->$/

/**
 * Returns the command blocks of a page, in order.
 *
 * @returns {{ language: string, line: number, text: string, notRun: string | null,
 *   needs: string | null }[]}
 */
function blocksOf(markdown) {
  const blocks = []
  let open = null
  let comment = ''
  for (const [i, line] of markdown.split('\n').entries()) {
    const fence = FENCE.exec(line.trim())
    if (open !== null && fence !== null) {
      if (LANGUAGES.has(open.language)) blocks.push(blockOf(open))
      open = null
    } else if (open !== null) {
      open.lines.push(line)
    } else if (fence !== null) {
      const [notRun, needs] = [NOT_RUN, NEEDS].map((kind) => kind.exec(comment)?.[1] ?? null)
      open = { language: fence[1], line: i + 1, lines: [], notRun, needs }
      comment = ''
    } else if (line.trim() !== '') {
      comment = line.trim()
    }
  }
  return blocks
}

function blockOf({ lines, ...block }) {
  return { ...block, text: lines.join('\n') }
}

/** Splits a console block into its commands, each with the output that follows it. */
function dialogue(text) {
  const steps = []
  for (const line of text.split('\n')) {
    if (line.startsWith('$ ')) steps.push({ command: line.slice(2), output: [] })
    else if (steps.at(-1)?.command.endsWith('\\') && steps.at(-1).output.length === 0)
      steps.at(-1).command += `\n${line}`
    else steps.at(-1)?.output.push(line)
  }
  return steps.map(({ command, output }) => ({ command, output: output.join('\n').trim() }))
}

/** Returns whether `output` is what a page shows; `...` there stands for any text. */
function matches(shown, output) {
  const escaped = shown
    .split('...')
    .map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replace(/\s+/g, '\\s+'))
  return new RegExp(`^${escaped.join('[\\s\\S]*')}$`).test(output.trim())
}

module.exports = { blocksOf, dialogue, matches }
