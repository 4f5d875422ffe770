// Checks docs/asyncapi.yaml with the reference parser: exit status 1 and the findings where it is not valid AsyncAPI.
import { Parser, fromFile } from '@asyncapi/parser';
import { fileURLToPath } from 'node:url';

const file = fileURLToPath(new URL('../docs/asyncapi.yaml', import.meta.url));
const { document, diagnostics } = await fromFile(new Parser(), file).parse();
for (const d of diagnostics) console.error(`${d.path.join('.') || '(document)'}: ${d.message}`);
if (!document || diagnostics.some((d) => d.severity === 0)) process.exit(1);
console.log(`docs/asyncapi.yaml: AsyncAPI ${document.version()}, ${document.channels().all().length} channels, ${document.messages().all().length} messages`);
