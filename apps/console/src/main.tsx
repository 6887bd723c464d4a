import { MantineProvider } from '@mantine/core';
import './mantine.js';
import { QueryClientProvider } from '@tanstack/react-query';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { queries } from './api.js';
import { App } from './app/App.js';
import { sessionQuery } from './app/session.js';
import './theme.css';
import './styles.css';
import { theme } from './theme.js';
import { prefetchTokens } from './tokens/TokensPage.js';
import { Hints } from './ui/Hints.js';

const root = document.getElementById('root');
if (!root) throw new Error('index.html has no #root');
// Under way while the page is being drawn.
void queries.prefetchQuery(sessionQuery);
if (['', '#/', '#/api-tokens'].includes(window.location.hash)) prefetchTokens();
// Variables and helper classes come from style sheets, because the page's policy refuses style elements made by script.
createRoot(root).render(
  <StrictMode>
    <MantineProvider theme={theme} defaultColorScheme="auto" withCssVariables={false} withGlobalClasses={false}>
      <QueryClientProvider client={queries}>
        <App />
        <Hints />
      </QueryClientProvider>
    </MantineProvider>
  </StrictMode>,
);
