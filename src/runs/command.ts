/** The command that repeats a run, from its configuration. */
import { snakeCaseName, toSnakeCase } from '../case'
import { trainSchema } from '../training/config'
import { trainFields } from '../training/fields'
import type { RunConfig } from '../training/run-config'

/** Options that concern one invocation of the command and not its result. */
const LEFT_OUT: ReadonlySet<string> = new Set(['run', 'resume', 'checkpoint', 'stop_at_step'])

/** Options whose value differs from the default, by their snake_case names. */
export function changedOptions(config: RunConfig): Record<string, unknown> {
  const defaults = trainSchema.parse({}) as Record<string, unknown>
  const options = toSnakeCase(config.options) as Record<string, unknown>
  return Object.fromEntries(
    Object.entries(options).filter(
      ([name, value]) =>
        !LEFT_OUT.has(name) &&
        value !== undefined &&
        JSON.stringify(value) !== JSON.stringify(defaults[name]),
    ),
  )
}

/** Returns the command line that trains the same model on the same data into a new folder. */
export function repeatCommand(config: RunConfig): string {
  const words = Object.entries(changedOptions(config)).flatMap(([name, value]) => {
    const flag = `--${name.replaceAll('_', '-')}`
    if (value === true) return [flag]
    if (value === false) return [flag.replace('--', '--no-')]
    return [flag, ...[value].flat().map((item) => quoted(String(item)))]
  })
  return ['kindling train', ...words].join(' ')
}

/** Quotes a word for a POSIX shell if it needs it. */
export function quoted(word: string): string {
  return /^[\w./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`
}

/** An option as people see it: name, value, whether it is the default, description. */
export interface ShownOption {
  name: string
  value: string
  isDefault: boolean
  description: string
}

/** Returns every option of a run. */
export function shownOptions(config: RunConfig): ShownOption[] {
  const changed = changedOptions(config)
  return Object.entries(trainFields).flatMap(([name, field]) => {
    if (LEFT_OUT.has(name)) return []
    const value = Object.entries(config.options).find(([key]) => snakeCaseName(key) === name)?.[1]
    if (value === undefined) return []
    return {
      name,
      value: [value].flat().join(' '),
      isDefault: !(name in changed),
      description: field.description ?? '',
    }
  })
}
