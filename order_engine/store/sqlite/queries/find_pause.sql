select reason from pauses where account in ('', ?) order by account limit 1
