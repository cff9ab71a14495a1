"""What the ledger does, one transaction each: functions of a Transaction and a request, without wire, threads or waiting."""
