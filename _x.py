def sub(path, *pairs):
    s=open(path).read()
    for a,b in pairs:
        assert s.count(a)==1,(path,a,s.count(a))
        s=s.replace(a,b)
    open(path,'w').write(s)
sub('twisted_mesh/stdlib/identity.py',('''            self._retry_at = time.monotonic() + self._draw.uniform(0, SPREAD)
        self._source.serve(served, trust)
        return served
''','''            self._retry_at = time.monotonic() + self._draw.uniform(0, SPREAD)
        return served
'''),('''            return False
        with self.lock:
            self._moment = Moment(svid, trust)
            if (''','''            return False
        if svid is not None:
            self._source.serve(svid, trust)
        with self.lock:
            self._moment = Moment(svid, trust)
            if ('''))
