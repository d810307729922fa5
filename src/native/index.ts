/** The addon, loaded once. The only importer of its generated types. */
import type * as Native from '../../index'
import { join } from 'node:path'
import { loadAddon } from './load'

/** The folder that holds package.json and, in a clone, the built addon. */
const packageRoot = join(__dirname, '..', '..')

/** The functions and classes of the addon, as `index.d.ts` types them. */
export const native = loadAddon(packageRoot) as typeof Native
export type { Native }
