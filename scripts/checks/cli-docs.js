/**
 * Checks that docs/cli.md matches the help of the commands; with --write (npm run docs), writes the
 * file.
 */
const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')
const cli = path.join(root, 'dist', 'cli', 'index.js')
const page = path.join(root, 'docs', 'cli.md')

function help(command) {
  const env = { ...process.env, NO_COLOR: '1' }
  return execFileSync(process.execPath, [cli, ...command, '--help'], {
    encoding: 'utf8',
    env,
  }).trimEnd()
}

/** Returns the commands that a help text lists, except `help`. */
function subcommands(text) {
  const listed = /^Commands:\n((?: .*\n?|\n)*)/m.exec(`${text}\n`)
  if (!listed) return []
  const names = [...listed[1].matchAll(/^ {2}([a-z]\S*)/gm)].map((found) => found[1].split('|')[0])
  return names.filter((name) => name !== 'help')
}

function sections(command) {
  const text = help(command)
  const title = `## kindling ${command.join(' ')}`.trimEnd()
  return [
    `${title}\n\n\`\`\`text\n${text}\n\`\`\``,
    ...subcommands(text).flatMap((name) => sections([...command, name])),
  ]
}

const head =
  '# The command line\n\nGenerated from the help of every command by `npm run docs`; do not edit.'
const wanted = `${[head, ...sections([])].join('\n\n')}\n`
if (process.argv.includes('--write')) {
  fs.writeFileSync(page, wanted)
} else if (!fs.existsSync(page) || fs.readFileSync(page, 'utf8') !== wanted) {
  process.stdout.write('docs/cli.md does not match the help of the commands; run npm run docs\n')
  process.exitCode = 1
}
