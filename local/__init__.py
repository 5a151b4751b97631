"""The whole system on one machine: embedded servers, event pump, trigger host, shopper."""
