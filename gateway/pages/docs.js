// Shows the document; nothing is fetched from anywhere but the gateway that served this page.
"use strict";

SwaggerUIBundle({
  dom_id: "#documentation",
  url: "docs/openapi-3.0.json",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  docExpansion: "list",
  presets: [SwaggerUIBundle.presets.apis],
  tryItOutEnabled: false,
  validatorUrl: null,
});
