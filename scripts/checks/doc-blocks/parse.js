/**
 * The command blocks of a Markdown page: fenced blocks in `sh`, `console`, `js` and `ts`.
 *
 * `sh` is commands. `console` is commands after `$ ` and what they print, where `...` stands for any
 * text. `js` and `ts` are ES modules; one with a first line `// name.mjs` is only saved
 * under that name, for a later command. A comment
 * `<!-- not run: reason -->` above a block leaves it out; `python` needs one.
 */

const LANGUAGES = new Set(['sh', 'console', 'js', 'ts', 'python'])
const FENCE = /^```(\w*)\s*$/
const NOT_RUN = /^<!-- not run: (.+) -->$/

/**
 * Returns the command blocks of a page, in order.
 *
 * @returns {{ language: string, line: number, text: string, notRun: string | null }[]}
 */
function blocksOf(markdown) {
  const blocks = []
  let open = null
  let notRun = null
  for (const [i, line] of markdown.split('\n').entries()) {
    const fence = FENCE.exec(line.trim())
    if (open !== null && fence !== null) {
      if (LANGUAGES.has(open.language)) blocks.push(blockOf(open))
      open = null
    } else if (open !== null) {
      open.lines.push(line)
    } else if (fence !== null) {
      open = { language: fence[1], line: i + 1, lines: [], notRun }
      notRun = null
    } else if (line.trim() !== '') {
      notRun = NOT_RUN.exec(line.trim())?.[1] ?? null
    }
  }
  return blocks
}

function blockOf({ language, line, lines, notRun }) {
  return { language, line, text: lines.join('\n'), notRun }
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
