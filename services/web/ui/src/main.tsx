// Starts the page.
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import "uplot/dist/uPlot.min.css";
import { App } from "./app";
import "./styles/base.css";
import "./styles/parts.css";
import "./styles/sessions.css";
import "./styles/session.css";
import "./styles/exposure.css";
import "./styles/resources.css";
import "./styles/curation.css";

const root = document.getElementById("root");
if (root !== null) {
  createRoot(root).render(
    <StrictMode>
      <App />
    </StrictMode>,
  );
}
