/**
 * The one conversion between the library's camelCase and the snake_case of files, flags and
 * `--json`. Only the keys of objects change, at every depth; values and the order of keys stay.
 */

/** `val_loss` as `valLoss`. */
type CamelName<S extends string> = S extends `${infer A}_${infer B}`
  ? `${A}${Capitalize<CamelName<B>>}`
  : S

/** `valLoss` as `val_loss`. */
type SnakeName<S extends string> = S extends `${infer A}${infer B}`
  ? A extends Lowercase<A>
    ? `${A}${SnakeName<B>}`
    : `_${Lowercase<A>}${SnakeName<B>}`
  : S

/** T with the keys of its objects in camelCase. */
export type CamelCased<T> = T extends readonly (infer E)[]
  ? CamelCased<E>[]
  : T extends object
    ? { [K in keyof T as K extends string ? CamelName<K> : K]: CamelCased<T[K]> }
    : T

/** T with the keys of its objects in snake_case. */
export type SnakeCased<T> = T extends readonly (infer E)[]
  ? SnakeCased<E>[]
  : T extends object
    ? { [K in keyof T as K extends string ? SnakeName<K> : K]: SnakeCased<T[K]> }
    : T

/**
 * Returns a copy of `value` with every key in snake_case: `{ valLoss: 1 }` becomes `{ val_loss: 1
 * }`.
 */
export function toSnakeCase<T>(value: T): SnakeCased<T> {
  return renameKeys(value, snakeCaseName) as SnakeCased<T>
}

/**
 * Returns a copy of `value` with every key in camelCase: `{ val_loss: 1 }` becomes `{ valLoss: 1
 * }`.
 */
export function toCamelCase<T>(value: T): CamelCased<T> {
  return renameKeys(value, camelCaseName) as CamelCased<T>
}

/** Returns one name in snake_case. */
export function snakeCaseName(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

function camelCaseName(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}

function renameKeys(value: unknown, rename: (name: string) => string): unknown {
  if (Array.isArray(value)) return value.map((item) => renameKeys(item, rename))
  if (!isPlainObject(value)) return value
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => [rename(name), renameKeys(item, rename)]),
  )
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  return (
    value !== null && typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype
  )
}
