/** Comparing stores with their checksums before they are used. */
import type { TokenStore } from '../token-store'
import type { DataSource } from './data-source'

/** Largest store to compare, in bytes, which takes about a second to read. */
const LARGEST_BYTES = 4 * 2 ** 30
/** Smaller stores are compared without reporting progress. */
const SHORT_BYTES = 256 * 2 ** 20
const TOKEN_BYTES: Record<string, number> = { int32: 4, int64: 8, uint16: 2 }

/** Callbacks of the comparison, and its cancellation. */
interface VerifyReport {
  message: (text: string) => void
  progress?: (what: string, done: number, total: number) => void
  signal?: AbortSignal | undefined
}

/**
 * Compares the chunks of stores with the checksums in their store.json.
 *
 * @throws KindlingError `ERR_INVALID_STORE` naming the chunks that differ.
 */
export async function verifyStores(stores: TokenStore[], report: VerifyReport): Promise<void> {
  for (const store of stores) await verifyStore(store, report)
}

/** Compares the stores of a run. */
export async function verifyData(
  { train, valid }: DataSource,
  report: VerifyReport,
): Promise<void> {
  const stores = train.map(({ store }) => store)
  await verifyStores(valid ? [...stores, valid] : stores, report)
}

async function verifyStore(
  store: TokenStore,
  { message, progress, signal }: VerifyReport,
): Promise<void> {
  const bytes = store.length * (TOKEN_BYTES[store.metadata.dtype] ?? 4)
  if (bytes > LARGEST_BYTES) {
    message(
      `${store.path} is larger than 4 GiB and was not compared with its checksums; ` +
        'to do that, run kindling data verify',
    )
    return
  }
  const onProgress = (done: number, total: number): void =>
    progress?.('verifying the data', done, total)
  await store.verify({ ...(signal && { signal }), ...(bytes > SHORT_BYTES && { onProgress }) })
}
