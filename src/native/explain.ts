/** Explains why the system's loader refused the addon, in an error that says what to do. */
import { KindlingError } from '../errors'

/** Messages of the loaders of glibc, musl and Windows, each with its cure. */
const CURES: readonly (readonly [RegExp, (found: RegExpExecArray) => string])[] = [
  [
    /version `GLIBC_([\d.]+)' not found/,
    ([, version]) =>
      `it needs glibc ${version!} or newer; use a newer system or container image ` +
      `(ldd --version prints what this one has)`,
  ],
  [
    /Error relocating|symbol not found|ld-linux.*No such file/,
    () => `it is for another C library; delete node_modules and run npm install on this system`,
  ],
  [
    /permission denied|EACCES/i,
    () => `make it readable, and its folders too (chmod -R a+rX node_modules)`,
  ],
  [
    /failed to map segment|operation not permitted/i,
    () => `its file system forbids running code (noexec); install the package on another one`,
  ],
  [
    /invalid ELF header|file too short|cannot read file data|wrong ELF class|not a valid Win32|not a mach-o|slice is not valid/i,
    () => `the file is damaged or for another platform; delete node_modules and run npm install`,
  ],
  [
    /no such file|cannot find module|ENOENT/i,
    () => `a file is missing; delete node_modules and run npm install`,
  ],
  [/cannot allocate memory/i, () => `free some memory, or raise the container's limit`],
]

/** Returns `ERR_ADDON_NOT_LOADED` for the addon in `file`, which failed to load with `error`. */
export function explainFailure(file: string, error: unknown): KindlingError {
  const answer = (error instanceof Error ? error.message : String(error)).split('\n')[0]!.trim()
  const said = answer.startsWith(file) ? answer.slice(file.length).replace(/^:\s*/, '') : answer
  const cure = CURES.map(([pattern, advise]) => {
    const found = pattern.exec(answer)
    return found && advise(found)
  }).find((text) => text !== null)
  return new KindlingError(
    'ERR_ADDON_NOT_LOADED',
    `the system could not load ${file}: ${said}; ${cure ?? 'reinstall the package'}`,
    { cause: error },
  )
}
