/**
 * `npm test`: builds what is missing, then runs every check and test, the quick ones first, and prints the counts.
 */
const { setup } = require('./setup')
const { runStages } = require('./stages')

const STAGES = [
  {
    name: 'paths named in the docs exist',
    command: ['node', 'scripts/checks/docs-paths.js'],
    quiet: true,
  },
  {
    name: 'docs/errors.md lists every error code',
    command: ['node', 'scripts/checks/errors-table.js'],
    quiet: true,
  },
  {
    name: 'docs/cli.md is what the CLI says',
    command: ['node', 'scripts/checks/cli-docs.js'],
    quiet: true,
  },
  {
    name: 'generated files are committed',
    command: ['node', 'scripts/checks/generated.js'],
    quiet: true,
  },
  { name: 'prettier', command: ['npx', '--no-install', 'prettier', '--check', '.'], quiet: true },
  { name: 'oxlint', command: ['npx', '--no-install', 'oxlint', '--deny-warnings'], quiet: true },
  {
    name: 'cargo fmt',
    command: ['cargo', 'fmt', '--all', '--check'],
    quiet: true,
    needs: [['cargo', 'fmt', '--version'], 'get it with: rustup component add rustfmt'],
  },
  {
    name: 'types of the tests',
    command: ['npx', '--no-install', 'tsc', '-p', 'tsconfig.test.json'],
    quiet: true,
  },
  { name: 'TypeScript tests', command: ['npx', '--no-install', 'ava'] },
  { name: 'Rust tests', command: ['cargo', 'test', '--release', '--workspace', '--no-fail-fast'] },
  {
    name: 'clippy',
    command: [
      'cargo',
      'clippy',
      '--release',
      '--workspace',
      '--all-targets',
      '--',
      '-D',
      'warnings',
    ],
    quiet: true,
    needs: [['cargo', 'clippy', '--version'], 'get it with: rustup component add clippy'],
  },
]

setup()
runStages(STAGES)
