/**
 * `npm test`: builds what is out of date, runs every check and test, the quick ones first, and
 * prints how many passed and failed.
 */
const { setup } = require('./setup')
const { runStages } = require('./stages')

/** A check prints its output only if it fails. */
const check = (name, command, needs) => ({ name, command, quiet: true, needs })
const node = (script) => ['node', `scripts/checks/${script}`]
const npx = (...args) => ['npx', '--no-install', ...args]
const cargo = (...args) => ['cargo', ...args]

const RUSTFMT = [cargo('fmt', '--version'), 'rustfmt is missing: run rustup component add rustfmt']
const CLIPPY = [cargo('clippy', '--version'), 'clippy is missing: run rustup component add clippy']
const ALL_TARGETS = [
  '--locked',
  '--release',
  '--workspace',
  '--all-targets',
  '--',
  '-D',
  'warnings',
]

const STAGES = [
  check('all paths named in the docs exist', node('docs-paths.js')),
  check('imports have no circles', node('import-circles.js')),
  check('docs/errors.md explains all error codes', node('errors-table.js')),
  check('the public API is described, with units and errors', node('api-docs.js')),
  check('docs/cli.md matches the help of the commands', node('cli-docs.js')),
  check('the generated files are committed', node('generated.js')),
  check('every function of the addon catches panics', node('catch-unwind.js')),
  check('the recipes of CONTRIBUTING.md work', node('recipes.js'), RUSTFMT),
  check('prettier', npx('prettier', '--check', '.')),
  check('oxlint', npx('oxlint', '--deny-warnings')),
  check('cargo fmt', cargo('fmt', '--all', '--check'), RUSTFMT),
  check('types of the tests', npx('tsc', '-p', 'tsconfig.test.json')),
  { name: 'TypeScript tests', command: npx('ava') },
  {
    name: 'Rust tests',
    command: cargo('test', '--locked', '--release', '--workspace', '--no-fail-fast'),
  },
  check('clippy', cargo('clippy', ...ALL_TARGETS), CLIPPY),
]

setup()
runStages(STAGES)
