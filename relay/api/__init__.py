"""The relay's REST interface: routes, models, errors and the OpenAPI document made from them."""
