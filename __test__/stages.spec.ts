/** The counts of the closing line of `npm test` and `.ci/run`: a wrong sum would hide a failure. */
import test from 'ava'
import { join } from 'node:path'

interface Counts {
  passed: number
  failed: number
  skipped: number
}
const { count } = require(join(__dirname, '..', 'scripts', 'stages.js')) as {
  count(output: string, exitCode: number): Counts
}

test('the counts of every binary of cargo test are added', (t) => {
  const output = [
    'test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s',
    'test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s',
  ].join('\n')
  t.deepEqual(count(output, 101), { passed: 15, failed: 2, skipped: 1 })
})

test('the counts of ava are read, exceptions outside of tests included', (t) => {
  const output =
    '  ✖ a test\n  ─\n\n  1 test failed\n  41 tests passed\n  2 tests skipped\n  1 uncaught exception\n'
  t.deepEqual(count(output, 1), { passed: 41, failed: 2, skipped: 2 })
})

test('a closing line stands for all that was printed before it', (t) => {
  const output =
    '  41 tests passed\ntest result: ok. 12 passed; 0 failed; 0 ignored\n53 passed, 0 failed, 4 skipped\n'
  t.deepEqual(count(output, 0), { passed: 53, failed: 0, skipped: 4 })
})

test('a check without counts is one test, and a failure without counts is one failed test', (t) => {
  t.deepEqual(count('17 paths exist\n', 0), { passed: 1, failed: 0, skipped: 0 })
  t.deepEqual(count('error: could not compile\n', 101), { passed: 0, failed: 1, skipped: 0 })
  t.deepEqual(count('  41 tests passed\n', 1), { passed: 41, failed: 1, skipped: 0 })
})
