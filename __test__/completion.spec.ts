/**
 * Completion scripts, loaded and queried in the shells themselves. Shells that are not installed
 * are skipped.
 */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { completionScript, type Shell } from '../src/cli/completion'
import { program } from '../src/cli/program'
import { PRESETS } from '../src/training/presets'
import { temporaryFolder } from './helpers'

/** Command lines, with words that they complete to and words that they must not complete to. */
const CASES: readonly [line: string, some: readonly string[], none: readonly string[]][] = [
  ['kindling tra', ['train'], ['generate']],
  ['kindling tokenizer ', ['train', 'stats'], ['encode']],
  ['kindling train --warm', ['--warmup-ratio'], ['--corpus', '--vocab-size']],
  ['kindling tokenizer train --min', ['--min-frequency'], ['--max-steps']],
  ['kindling train --preset char', ['char', 'char-gpu'], ['seed']],
  ['kindling train book.txt --dtype ', ['f32', 'bf16'], ['--lr']],
  ['kindling completion ', ['bash', 'zsh', 'fish'], ['train']],
]

/** Runs a shell, or returns null if it is not installed. */
function shell(name: Shell, args: readonly string[]): { stdout: string; stderr: string } | null {
  const found = spawnSync(name, args, { encoding: 'utf8' })
  return found.error ? null : found
}

function scriptFile(folder: string, name: Shell): string {
  const file = join(folder, `kindling.${name}`)
  writeFileSync(file, completionScript(program(), name))
  return file
}

test('bash completes commands, flags and choices', (t) => {
  const file = scriptFile(temporaryFolder(t), 'bash')
  const ask = `source ${file}; IFS=' ' read -ra COMP_WORDS <<< "$1"
    [[ $1 == *' ' ]] && COMP_WORDS+=(''); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)); _kindling
    printf '%s\\n' "\${COMPREPLY[@]}"`
  for (const [line, some, none] of CASES) {
    const { stdout, stderr } = shell('bash', ['-c', ask, 'bash', line])!
    t.is(stderr, '')
    const words = stdout.trim().split('\n')
    for (const word of some) t.true(words.includes(word), `${line}: ${stdout}`)
    for (const word of none) t.false(words.includes(word), `${line}: ${stdout}`)
  }
  const { stdout } = shell('bash', ['-c', ask, 'bash', 'kindling train --preset '])!
  for (const name of Object.keys(PRESETS)) t.true(stdout.split('\n').includes(name))
})

test('fish completes commands, flags and choices', (t) => {
  const file = scriptFile(temporaryFolder(t), 'fish')
  for (const [line, some, none] of CASES) {
    const asked = shell('fish', ['-N', '-c', `source ${file}; complete -C ${JSON.stringify(line)}`])
    if (asked === null) return t.pass('fish is not installed')
    t.is(asked.stderr, '')
    const words = asked.stdout.split('\n').map((row) => row.split('\t')[0]!)
    for (const word of some) t.true(words.includes(word), `${line}: ${asked.stdout}`)
    for (const word of none) t.false(words.includes(word), `${line}: ${asked.stdout}`)
  }
})

test('zsh loads the script, which registers the command', (t) => {
  const file = scriptFile(temporaryFolder(t), 'zsh')
  const asked = shell('zsh', [
    '-fc',
    `autoload -Uz compinit; compinit -D; source ${file}; print $_comps[kindling]`,
  ])
  if (asked === null) return t.pass('zsh is not installed')
  t.is(asked.stderr, '')
  t.regex(asked.stdout, /_bash_complete .*-F _kindling/)
})
