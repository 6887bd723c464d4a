import { type OpenApiDocument, openApiDocument } from '@latchkey/contracts';
import { openApiProblems } from '../openapi.mjs';

const changed = (change: (document: OpenApiDocument) => void) => {
  const document = structuredClone(openApiDocument());
  change(document);
  return openApiProblems(document);
};

it('the document has no problems', async () => {
  expect(await openApiProblems()).toEqual([]);
});

it('finds a broken reference', async () => {
  const problems = await changed((document) => delete document.components.schemas['Token']);
  expect(problems.join()).toMatch(/#\/.*Can't resolve \$ref/);
});

it('finds a call whose path parameter is not described', async () => {
  const problems = await changed((document) => {
    const call = document.paths['/v1/tokens/{id}']?.['get'];
    if (call) delete call['parameters'];
  });
  expect(problems.join()).toMatch(/path-parameters-defined/);
});
