/**
 * Follows the recipes of CONTRIBUTING.md in a temporary copy of the tree: adds an option, a
 * command, an error code and an op to the files that the recipes name, and checks that each has its
 * effect.
 */
const assert = require('node:assert/strict')
const { execFileSync, spawnSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const root = path.join(__dirname, '..', '..')
const copy = fs.mkdtempSync(path.join(os.tmpdir(), 'kindling-recipes-'))

/** Paths that the recipes need, relative to the root. */
const COPIED = [
  'src',
  'crates/kindling-core/src',
  'crates/kindling-napi/src',
  'docs/errors.md',
  'scripts/checks/errors-table.js',
  'CONTRIBUTING.md',
  'package.json',
  'rustfmt.toml',
  'tsconfig.json',
  'index.d.ts',
]

const read = (file) => fs.readFileSync(path.join(copy, file), 'utf8')
const write = (file, text) => {
  fs.mkdirSync(path.dirname(path.join(copy, file)), { recursive: true })
  fs.writeFileSync(path.join(copy, file), text)
}

function copyTree() {
  for (const name of COPIED) {
    fs.mkdirSync(path.dirname(path.join(copy, name)), { recursive: true })
    fs.cpSync(path.join(root, name), path.join(copy, name), { recursive: true })
  }
  const addons = fs.readdirSync(root).filter((name) => name.endsWith('.node'))
  for (const name of ['node_modules', ...addons]) {
    fs.symlinkSync(path.join(root, name), path.join(copy, name))
  }
}

/** Returns the text of a recipe, up to the next heading. */
function recipe(title) {
  const [, section] = read('CONTRIBUTING.md').split(`\n## ${title}\n`)
  assert(section, `CONTRIBUTING.md has no section "${title}"`)
  return section.split('\n## ')[0]
}

/** Inserts `text` after `anchor` in a file that the recipe has to name. */
function edit(title, file, anchor, text) {
  assert(recipe(title).includes(`\`${file}\``), `"${title}" does not name ${file}`)
  const before = read(file)
  assert(before.includes(anchor), `${file} has no line "${anchor}", which "${title}" extends`)
  write(
    file,
    before.replace(anchor, () => `${anchor}${text}`),
  )
}

/** Creates a file in a folder that the recipe has to name. */
function create(title, folder, name, text) {
  assert(recipe(title).includes(`\`${folder}\``), `"${title}" does not name ${folder}`)
  assert(fs.existsSync(path.join(copy, folder)), `${folder} does not exist`)
  write(path.join(folder, name), text)
}

function kindling(...args) {
  const cli = path.join(copy, 'dist', 'cli', 'index.js')
  return execFileSync(process.execPath, [cli, ...args], { encoding: 'utf8' })
}

function addOption() {
  const title = 'Add an option of `kindling train`'
  edit(
    title,
    'src/training/fields.ts',
    'const dataFields = {',
    "\n  recipe_option: z.int().min(1).default(7).describe('an option'),",
  )
  assert(recipe(title).includes('`CHANGEABLE_ON_RESUME`'), `"${title}" does not name the set`)
  edit(title, 'src/training/config.ts', 'new Set<keyof TrainOptions>([', "\n  'recipeOption',")
  // The library's option has a type as soon as the field exists.
  write(
    'src/recipe.ts',
    "import { Trainer } from './training/trainer'\nvoid ((): Trainer => new Trainer({ recipeOption: 1 }))\n",
  )
}

function checkOption() {
  assert.match(
    kindling('train', '--help-all'),
    /--recipe-option <n> +an option \(default: 7\)/,
    'the help of train does not show the new option',
  )
  const { properties } = JSON.parse(kindling('train', '--config-schema'))
  assert.equal(properties.recipe_option.default, 7)
  const { CHANGEABLE_ON_RESUME } = require(path.join(copy, 'dist', 'training', 'config.js'))
  assert(CHANGEABLE_ON_RESUME.has('recipeOption'), 'resumed runs cannot change the new option')
}

function addCommand() {
  const title = 'Add a command'
  create(
    title,
    'src/cli/commands/',
    'recipe.ts',
    "import { Command } from 'commander'\nexport function recipeCommand(): Command {\n  return new Command('recipe').description('a command')\n}\n",
  )
  const index = 'src/cli/commands/index.ts'
  edit(
    title,
    index,
    "import type { Command } from 'commander'\n",
    "import { recipeCommand } from './recipe'\n",
  )
  edit(title, index, 'return [', 'recipeCommand(),')
}

function checkCommand() {
  assert.match(
    kindling('--help'),
    /^ +recipe +a command$/m,
    'the help does not list the new command',
  )
}

function addErrorCode() {
  const title = 'Add an error code'
  const table = () =>
    spawnSync(process.execPath, ['scripts/checks/errors-table.js'], { cwd: copy, encoding: 'utf8' })
  edit(
    title,
    'crates/kindling-core/src/error.rs',
    'match self {',
    '\n            Self::Recipe => "ERR_RECIPE",',
  )
  const { status, stdout } = table()
  assert.equal(status, 1, 'errors-table.js accepts a code without a page')
  assert.match(stdout, /ERR_RECIPE .*docs\/errors\.md/)
  const page = 'docs/errors.md'
  edit(title, page, '|---|---|\n', '| [`ERR_RECIPE`](#err_recipe) | a meaning |\n')
  assert.equal(table().status, 1, 'errors-table.js accepts a code without a section')
  const example = '```console\n$ kindling recipe\nERR_RECIPE: a message\n```'
  write(page, `${read(page)}\n## ERR_RECIPE\n\nCause: a cause.\n\nFix: a fix.\n\n${example}\n`)
  assert.equal(table().status, 0, 'errors-table.js does not find the new section')
}

/**
 * rustfmt follows `mod` items, so it finds an op's files as soon as the op is registered, without a
 * build.
 */
function addOp() {
  const title = 'Add an op'
  const unformatted = () => {
    const args = ['--check', '--edition', '2024', '-l', 'crates/kindling-core/src/lib.rs']
    return spawnSync('rustfmt', args, { cwd: copy, encoding: 'utf8' }).stdout
  }
  const folder = 'crates/kindling-core/src/ops/'
  for (const name of ['mod.rs', 'reference.rs', 'cpu.rs', 'cuda.rs', 'cuda.cu']) {
    assert(recipe(title).includes(`\`${name}\``), `"${title}" does not name ${name}`)
    assert(fs.existsSync(path.join(copy, folder, 'rms_norm', name)), `rms_norm has no ${name}`)
  }
  create(title, folder, 'recipe/mod.rs', 'mod   reference;\n')
  write(`${folder}recipe/reference.rs`, 'fn   f() {}\n')
  assert.doesNotMatch(unformatted(), /ops\/recipe/, 'the op compiles before it is declared')
  edit(title, `${folder}mod.rs`, 'pub mod adamw;\n', 'pub mod recipe;\n')
  assert.match(unformatted(), /ops\/recipe\/reference\.rs/, 'a declared op does not compile')
}

function main() {
  try {
    copyTree()
    addErrorCode()
    addOp()
    addOption()
    addCommand()
    execFileSync(
      process.execPath,
      [path.join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', 'tsconfig.json'],
      { cwd: copy, stdio: 'inherit' },
    )
    checkOption()
    checkCommand()
    process.stdout.write('4 recipes lead to the right files\n')
  } catch (error) {
    process.stdout.write(`${error.message}\n`)
    process.exitCode = 1
  } finally {
    fs.rmSync(copy, { recursive: true, force: true })
  }
}

main()
