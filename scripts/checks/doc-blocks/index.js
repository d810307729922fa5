/**
 * Runs the command blocks of the README and the docs, page by page, each in a folder with the files
 * that the page assumes (fixtures.js). Replacements make the commands run in seconds
 * (reductions.js); one that changes nothing is an error. Prints every block that was not run, with
 * its reason, and ends with `N passed, N failed, N skipped`.
 *
 * Usage: node scripts/checks/doc-blocks/index.js [PAGE...]
 */
const { execFileSync, spawn } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { writeFixtures, writePrograms } = require('./fixtures')
const { blocksOf, dialogue, matches } = require('./parse')
const { peerOf } = require('./peers')
const { reductionsOf } = require('./reductions')

const root = path.join(__dirname, '..', '..', '..')
const LIMIT_MS = 600_000
const counts = { passed: 0, failed: 0, skipped: 0 }

/** Returns all pages with commands: Markdown files of the repository, without fixtures. */
function allPages() {
  const files = execFileSync('git', ['-c', 'safe.directory=*', 'ls-files', '*.md'], {
    cwd: root,
    encoding: 'utf8',
  })
  return files.split('\n').filter((file) => file !== '' && !/fixtures|^\.changeset/.test(file))
}

/** Runs a command of a page by bash; resolves to its exit code and its output, both streams. */
function bash(command, folder, programs) {
  const child = spawn('bash', ['-c', `set -eo pipefail\n${command}`], {
    cwd: folder,
    env: { ...process.env, PATH: `${programs}:${process.env.PATH}`, NO_COLOR: '1', COLUMNS: '100' },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: LIMIT_MS,
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => (output += text))
  }
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, output })))
}

/** Returns the problem of a block, null if it does what the page says. */
async function run({ language, text, peer }, place, folder, programs) {
  if (language === 'python') {
    if (!peer?.python) return 'say above the block which package it needs'
    const name = `block-${place}.py`
    fs.writeFileSync(path.join(folder, name), text)
    return exited(await bash(`${peer.python} ${name}`, folder, programs))
  }
  if (language === 'sh') return exited(await bash(text, folder, programs))
  if (language === 'console') {
    for (const { command, output: shown } of dialogue(text)) {
      const { code, output } = await bash(command, folder, programs)
      if (!matches(shown, output)) return `$ ${command}\nprints\n${output}instead of\n${shown}`
      if (code !== 0 && !/\bERR_/.test(shown)) return `$ ${command}\nexit code ${code}\n${output}`
    }
    return null
  }
  // A named module is only saved, for a later command.
  const named = /^\/\/ (\S+\.mjs)\n/.exec(text)?.[1]
  const name = named ?? `block-${place}.mjs`
  fs.writeFileSync(path.join(folder, name), javascript(language, text))
  if (named !== undefined) return null
  peer?.link(folder)
  return exited(await bash(`node ${name}`, folder, programs))
}

/** Returns the problem of a finished command, null if there is none. */
function exited({ code, output }) {
  return code === 0 ? null : `exit code ${code}\n${output}`
}

/** Compiles TypeScript without checking types, which `tsc` does elsewhere. */
function javascript(language, text) {
  if (language === 'js') return text
  const ts = require('typescript')
  const options = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 }
  return ts.transpileModule(text, { compilerOptions: options }).outputText
}

/** Applies the reductions of a page to its blocks; returns those that changed nothing. */
function reduce(blocks, reductions) {
  const unused = []
  for (const [from, to] of reductions) {
    let isUsed = false
    for (const block of blocks) {
      const text = block.text.replaceAll(from, to)
      isUsed ||= text !== block.text
      block.text = text
    }
    if (!isUsed) unused.push(String(from))
  }
  return unused
}

/** Joins the TypeScript blocks of a page, which continue one another, into the last of them. */
function joinModules(blocks) {
  const modules = blocks.filter(({ language, notRun }) => language === 'ts' && notRun === null)
  const last = modules.at(-1)
  if (modules.length < 2) return blocks
  last.text = modules.map(({ text }) => text).join('\n')
  return blocks.filter((block) => block === last || !modules.includes(block))
}

async function checkPage(page, template, programs, folder) {
  const found = blocksOf(fs.readFileSync(path.join(root, page), 'utf8'))
  if (found.length === 0) return
  for (const block of found.filter(({ needs }) => needs !== null)) {
    block.peer = peerOf(block.needs)
    if (block.peer === null) block.notRun = `${block.needs} is not installed`
  }
  fs.cpSync(template, folder, { recursive: true })
  for (const { line, notRun } of found.filter((block) => block.notRun !== null)) {
    counts.skipped++
    process.stdout.write(`not run ${page}:${line}: ${notRun}\n`)
  }
  const { replace, prepare } = reductionsOf(page)
  if (prepare !== undefined) {
    const { code, output } = await bash(prepare, folder, programs)
    if (code !== 0) throw new Error(`the preparation of ${page} fails\n${output}`)
  }
  const unused = reduce(found, replace)
  if (unused.length > 0) {
    counts.failed++
    process.stdout.write(`not ok ${page}: replaces nothing: ${unused.join(', ')}\n`)
  }
  for (const block of joinModules(found.filter(({ notRun }) => notRun === null))) {
    const started = Date.now()
    const problem = await run(block, block.line, folder, programs)
    const seconds = ((Date.now() - started) / 1000).toFixed(1)
    counts[problem === null ? 'passed' : 'failed']++
    const verdict = problem === null ? 'ok' : 'not ok'
    process.stdout.write(`${verdict} ${page}:${block.line} (${seconds} s)\n${problem ?? ''}`)
    if (problem !== null) process.stdout.write('\n')
  }
}

async function main() {
  const pages = process.argv.length > 2 ? process.argv.slice(2) : allPages()
  const temporary = fs.mkdtempSync(path.join(os.tmpdir(), 'kindling-docs-'))
  try {
    const programs = writePrograms(path.join(temporary, 'bin'))
    const template = path.join(temporary, 'files')
    writeFixtures(template)
    for (const [i, page] of pages.entries()) {
      await checkPage(page, template, programs, path.join(temporary, `page-${i}`))
    }
  } finally {
    fs.rmSync(temporary, { recursive: true, force: true })
  }
  const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : ''
  process.stdout.write(`${counts.passed} passed, ${counts.failed} failed${skipped}\n`)
  process.exitCode = counts.failed > 0 ? 1 : 0
}

void main()
