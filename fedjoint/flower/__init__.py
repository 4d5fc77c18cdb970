"""The only room that touches Flower beyond flwr.app, flwr.clientapp and flwr.serverapp."""
