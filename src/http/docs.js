// Without validatorUrl: null the page would send the document to a public validator.
SwaggerUIBundle({url: "/openapi.json", dom_id: "#ui", validatorUrl: null, tryItOutEnabled: true});
