/**
 * Checks that docs/cli.md matches the help of the commands; with --write (npm run docs), writes the
 * file.
 */
const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')
const cli = path.join(root, 'dist', 'cli', 'index.js')
const { program } = require(path.join(root, 'dist', 'cli', 'program.js'))
const page = path.join(root, 'docs', 'cli.md')

/** Returns the whole help of a command, including the options that --help leaves out. */
function help(command) {
  const print = (flag) =>
    execFileSync(process.execPath, [cli, ...command, flag], {
      encoding: 'utf8',
      env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0' },
    }).trimEnd()
  const short = print('--help')
  return short.includes('--help-all') ? print('--help-all') : short
}

function sections(command, names) {
  const title = `## kindling ${names.join(' ')}`.trimEnd()
  return [
    `${title}\n\n\`\`\`text\n${help(names)}\n\`\`\``,
    ...command.commands.flatMap((child) => sections(child, [...names, child.name()])),
  ]
}

const head =
  '# The command line\n\nGenerated from the help of every command by `npm run docs`; do not edit.'
const wanted = `${[head, ...sections(program(), [])].join('\n\n')}\n`
if (process.argv.includes('--write')) {
  fs.writeFileSync(page, wanted)
} else if (!fs.existsSync(page) || fs.readFileSync(page, 'utf8') !== wanted) {
  process.stdout.write('docs/cli.md does not match the help of the commands; run npm run docs\n')
  process.exitCode = 1
}
