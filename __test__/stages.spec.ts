/** The counts in the closing line of `npm test` and `.ci/run`: a wrong sum could hide a failure. */
import test from 'ava'
import { spawnSync } from 'node:child_process'
import { symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { temporaryFolder } from './helpers'

interface Counts {
  passed: number
  failed: number
  skipped: number
}

const root = join(__dirname, '..')
const { count, failedLines } = require(join(root, 'scripts', 'stages.js')) as {
  count(output: string, exitCode: number): Counts
  failedLines(output: string): string[]
}

test('counts of all cargo test binaries are added up', (t) => {
  const output = [
    'test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s',
    'test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s',
  ].join('\n')
  t.deepEqual(count(output, 101), { passed: 15, failed: 2, skipped: 1 })
})

test('a failed ava run still counts the tests that passed', (t) => {
  const folder = temporaryFolder(t)
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
  writeFileSync(join(folder, 'package.json'), '{ "ava": { "files": ["*.test.cjs"] } }')
  const file = (...tests: string[]): string => ["const test = require('ava')", ...tests].join('\n')
  const passing = (name: string): string => `test('${name}', (t) => t.pass())`
  writeFileSync(join(folder, 'a.test.cjs'), file(passing('1'), passing('2'), passing('3')))
  writeFileSync(
    join(folder, 'b.test.cjs'),
    file(passing('4'), "test('5', (t) => t.fail())", "test.skip('6', (t) => t.pass())"),
  )
  const ava = (...files: string[]): Counts => {
    const cli = join(root, 'node_modules', 'ava', 'entrypoints', 'cli.mjs')
    const { stdout, stderr, status } = spawnSync(process.execPath, [cli, ...files], {
      cwd: folder,
      encoding: 'utf8',
      env: { ...process.env, FORCE_COLOR: '0' },
    })
    return count(stdout + stderr, status!)
  }
  t.deepEqual(ava(), { passed: 4, failed: 1, skipped: 1 })
  t.deepEqual(ava('a.test.cjs'), { passed: 3, failed: 0, skipped: 0 })
})

test('exceptions outside of tests count as failures', (t) => {
  const output = [
    '  ✔ cli › a test',
    '  ✔ cli › another test (1.2s)',
    '  ✘ [fail]: cli › a failing test',
    '  ─',
    '',
    '  1 test failed',
    '  2 tests skipped',
    '  1 uncaught exception',
    '',
  ].join('\n')
  t.deepEqual(count(output, 1), { passed: 2, failed: 2, skipped: 2 })
})

test('what failed is named once more at the end', (t) => {
  const failed = [
    '✘ [fail]: cli › a failing test Promise returned by test never resolved',
    'test store::tests::chunks ... FAILED',
    'NOT OK a run without kills (steps 3)',
    '-- clippy: FAILED (0 passed, 1 failed; 2.0 s)',
  ]
  const passed = [
    '  ✔ cli › a test',
    'test a ... ok',
    'ok a claim',
    'test result: FAILED. 3 passed',
  ]
  const output = [...failed, ...passed, `  ${failed[0]!}`].join('\n')
  t.deepEqual(failedLines(output), failed)
})

test('a closing line replaces all counts printed before it', (t) => {
  const output =
    '  41 tests passed\ntest result: ok. 12 passed; 0 failed; 0 ignored\n53 passed, 0 failed, 4 skipped\n'
  t.deepEqual(count(output, 0), { passed: 53, failed: 0, skipped: 4 })
})

test('a stage without counts is one test', (t) => {
  t.deepEqual(count('17 paths exist\n', 0), { passed: 1, failed: 0, skipped: 0 })
  t.deepEqual(count('error: could not compile\n', 101), { passed: 0, failed: 1, skipped: 0 })
})

test('a nonzero exit code is a failure even if all counts passed', (t) => {
  t.deepEqual(count('  41 tests passed\n', 1), { passed: 41, failed: 1, skipped: 0 })
})
